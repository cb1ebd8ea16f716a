from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, Entry, Store
from tests.cache.servers import colleague, remote, s3, server, sftp, short_pauses

Make = Callable[..., Entry]

__all__ = ["colleague", "remote", "s3", "server", "sftp", "short_pauses"]


def batch(
    start: int, stop: int, dimension: int, classes: int, multi_label: bool, dtype: Any
) -> dict[str, Any]:
    """Rows start ... stop of an endless table whose every value follows from its place."""
    rows = np.arange(start, stop)
    features = np.sin(rows[:, None] * 1.7 + np.arange(dimension) * 0.3).astype(dtype)
    labels = rows % classes
    if multi_label:
        labels = ((rows[:, None] + np.arange(classes)) % 3 - 1).astype(np.int8)
    return {
        "features": features,
        "labels": labels.astype(np.int8 if multi_label else np.int64),
        "ids": [f"bild-{row:05d}é.jpg" for row in rows],
        "stop": stop,
        "row_metadata": {"image_sha256": [f"{row:064x}" for row in rows], "group": [None for _ in rows]},
    }


def metadata(rows: int, classes: int = 3, multi_label: bool = False, **coordinates: Any) -> dict[str, Any]:
    return {
        "coordinates": {"backbone": "resnet50", "dataset": "pets", "split": "train", **coordinates},
        "class_names": [f"class {k}" for k in range(classes)],
        "multi_label": multi_label,
        "expected_rows": rows,
        "provenance": {"host": "here", "seconds": 1.5},
    }


def key_of(**ingredients: Any) -> CacheKey:
    return CacheKey.from_ingredients({"recipe_version": 1, "backbone": "resnet50", **ingredients})


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a sound entry of six rows and four dimensions under `key_of()`."""
    folder = tmp_path_factory.mktemp("sound")
    with Store(folder, private=folder).writer(key_of(), metadata(6)) as writer:
        writer.append(**batch(0, 6, 4, 3, False, np.float32))
        return writer.publish().path.read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", private=tmp_path / "private")


@pytest.fixture(scope="session")
def built() -> dict[str, tuple[bytes, bytes]]:
    """Bytes of the entries that were built before, with their provenance."""
    return {}


@pytest.fixture
def make(store: Store, built: dict[str, tuple[bytes, bytes]]) -> Make:
    """Write an entry in batches of seven rows; one that was built before is put in place as it was.

    With ``anew``, or where rows are staged, it is built whatever was built before.
    """

    def write(
        rows: int = 20,
        dimension: int = 5,
        classes: int = 3,
        multi_label: bool = False,
        dtype: Any = np.float32,
        into: Store | None = None,
        key: CacheKey | None = None,
        anew: bool = False,
        **coordinates: Any,
    ) -> Entry:
        key, target = key or key_of(**coordinates), into or store
        name = f"{rows} {dimension} {classes} {multi_label} {np.dtype(dtype)} {key} {coordinates}"
        path = target.path_of(key)
        if name in built and not anew and not target.staging_folder(key).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(built[name][0])
            path.chmod(0o444)
            path.with_suffix(".json").write_bytes(built[name][1])
            return target.read(key)
        with target.writer(key, metadata(rows, classes, multi_label, **coordinates)) as writer:
            for start in range(writer.next_row, rows, 7):
                writer.append(**batch(start, min(rows, start + 7), dimension, classes, multi_label, dtype))
            entry = writer.publish()
        built[name] = (path.read_bytes(), path.with_suffix(".json").read_bytes())
        return entry

    return write
