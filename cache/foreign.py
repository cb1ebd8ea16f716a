"""Features that somebody else computed: checked, and made into entries with a recipe of their own."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.atomic import make_folder
from cache.children import run_child
from cache.digests import digest_of_file
from cache.entry import Entry
from cache.errors import InvalidInputError
from cache.keys import CacheKey, sha256_of
from cache.store import Store

RECIPE = "foreign-1"
"""Changes when the same files would give another entry."""
_ROWS_AT_A_TIME = 4096
_CHILD_SECONDS = 3600.0


@dataclass(frozen=True)
class Annotations:
    """What belongs to the rows of a table of features."""

    ids: tuple[str, ...]
    labels: NDArray[Any]
    """(n,) int64 or (n, K) int8, -1 = ignore."""
    class_names: tuple[str, ...]
    multi_label: bool
    groups: tuple[str | None, ...] | None = None


def import_features(
    store: Store,
    features: Path,
    annotations: Annotations,
    coordinates: Mapping[str, str | int | float],
    provenance: Mapping[str, Any] | None = None,
) -> Entry:
    """Make an entry from a .npy file of features and their annotations.

    Parameters
    ----------
    store : Store
        Where it goes.
    features : Path
        A .npy file, (n, d), float32 or float16; float64 is rounded to float32 and the recipe says so.
    annotations : Annotations
        One for each row, in the order of the rows; see `read_labels`.
    coordinates : mapping
        What people find it by: backbone, weights, dataset, split, preprocessing.
    provenance : mapping, optional
        Where the features come from, in words.

    Raises
    ------
    InvalidInputError
        Not such a file, other numbers of rows, NaN, duplicate ids, labels outside the classes.
    CacheWriteError
        The disk refused.
    """
    table = _open_npy(features)
    n = len(annotations.ids)
    if table.shape[0] != n:
        raise InvalidInputError(f"{features}: {table.shape[0]} rows of features, {n} rows of labels")
    key = CacheKey.from_ingredients(
        {
            "annotations": _digest_of(annotations),
            "coordinates": dict(coordinates),
            "features_sha256": digest_of_file(features),
            "recipe": RECIPE,
            "rounded_from": table.dtype.name if table.dtype == np.float64 else None,
        }
    )
    metadata = {
        "class_names": list(annotations.class_names),
        "coordinates": dict(coordinates),
        "expected_rows": n,
        "multi_label": annotations.multi_label,
        "provenance": {"features": features.name, **(provenance or {})},
    }
    dtype = np.float32 if table.dtype == np.float64 else table.dtype.newbyteorder("=")
    with store.writer(key, metadata) as writer:
        for start in range(writer.next_row, n, _ROWS_AT_A_TIME):
            rows = slice(start, min(n, start + _ROWS_AT_A_TIME))
            groups = annotations.groups
            writer.append(
                np.asarray(table[rows]).astype(dtype),
                annotations.labels[rows],
                annotations.ids[rows],
                stop=rows.stop,
                row_metadata={} if groups is None else {"group": groups[rows]},
            )
        return writer.publish()


def import_hdf5(
    store: Store,
    source: Path,
    annotations: Annotations,
    coordinates: Mapping[str, str | int | float],
    *,
    dataset: str = "features",
    provenance: Mapping[str, Any] | None = None,
) -> Entry:
    """Make an entry from a dataset of anybody's HDF5 file; libhdf5 reads it in a limited child.

    Parameters
    ----------
    store, annotations, coordinates, provenance
        As for `import_features`.
    source : Path
        The HDF5 file.
    dataset : str
        Name of the (n, d) dataset of floats in it.

    Raises
    ------
    InvalidInputError
        The dataset is absent, has another kind or shape, lies outside the file, or cannot be read.
    """
    rows = len(annotations.ids)
    with tempfile.TemporaryDirectory(dir=make_folder(store.root)) as folder:
        target = Path(folder) / "features.npy"
        arguments = [str(source.absolute()), dataset, str(rows), str(target)]
        answer = run_child("cache.extract_foreign", arguments, timeout=_CHILD_SECONDS)
        if answer.failure or "error" in answer.values:
            raise InvalidInputError(
                f"{source}: {answer.failure or answer.values['error']}: nothing was imported"
            )
        where = {"hdf5": source.name, "dataset": dataset, **(provenance or {})}
        return import_features(store, target, annotations, coordinates, where)


def read_labels(path: Path, *, class_names: Sequence[str] | None = None) -> Annotations:
    """Read a csv with the columns ``id,label`` and, optional, ``group``; one line for each row of features.

    Labels joined with ``|`` make the set multi-label, a leading ``?`` means ignore.

    Parameters
    ----------
    path : Path
        UTF-8, with a header line.
    class_names : sequence of str, optional
        All classes in their order; default: the labels that occur, sorted by code point.

    Raises
    ------
    InvalidInputError
        A missing column, an empty cell, a label that is no class; the line is named.
    """
    lines = _lines(path)
    cells = [[part.strip() for part in line["label"].split("|")] for line in lines]
    found = {part.removeprefix("?") for parts in cells for part in parts}
    names = tuple(class_names) if class_names is not None else tuple(sorted(found))
    if unknown := sorted(found - set(names)):
        raise InvalidInputError(
            f"{path}: {unknown[0]!r:.80} is none of the {len(names)} classes: correct the label"
        )
    multi_label = any(len(parts) > 1 or parts[0].startswith("?") for parts in cells)
    place = {name: k for k, name in enumerate(names)}
    if multi_label:
        labels = np.zeros((len(lines), len(names)), dtype=np.int8)
        for row, parts in enumerate(cells):
            for part in parts:
                labels[row, place[part.removeprefix("?")]] = -1 if part.startswith("?") else 1
    else:
        labels = np.array([place[parts[0]] for parts in cells], dtype=np.int64)
    groups = tuple(line["group"] or None for line in lines) if "group" in lines[0] else None
    return Annotations(tuple(line["id"] for line in lines), labels, names, multi_label, groups)


def _lines(path: Path) -> list[dict[str, str]]:
    """Read the lines of a csv that has the columns we need."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path}: cannot be read as UTF-8 csv: {error}") from error
    if not lines or not {"id", "label"} <= set(lines[0]):
        raise InvalidInputError(f"{path}: needs a header with id and label, and at least one line")
    for number, line in enumerate(lines, 2):
        if not line["id"] or not line["label"] or None in line or None in line.values():
            raise InvalidInputError(f"{path}: line {number} lacks an id or a label, or has other columns")
    return lines


def _open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file that holds a table of floats; nothing in it is executed."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise InvalidInputError(
            f"{path}: is no .npy file that can be mapped: {ascii(str(error))[:120]}"
        ) from error
    if (
        not isinstance(table, np.ndarray)
        or table.ndim != 2
        or table.dtype.kind != "f"
        or table.dtype.itemsize > 8
    ):
        shape = getattr(table, "shape", None)
        raise InvalidInputError(
            f"{path}: holds {getattr(table, 'dtype', type(table))} {shape}: expected (n, d) floats"
        )
    return table


def _digest_of(annotations: Annotations) -> str:
    """Return the digest of everything but the features."""
    return sha256_of(
        {
            "class_names": annotations.class_names,
            "groups": annotations.groups,
            "ids": annotations.ids,
            "labels": np.asarray(annotations.labels).tolist(),
            "multi_label": annotations.multi_label,
        }
    )
