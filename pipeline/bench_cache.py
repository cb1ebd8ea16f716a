"""`penultimate bench cache`: what keeping features costs, beside one SHA-256 pass over the same bytes.

The other side is what nobody can do without: reading the file once through SHA-256, and writing as many
bytes and syncing them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache import CacheKey, Entry, Store

Rows = list[dict[str, Any]]
ROWS = 66_000
DIMENSION = 1280
BATCH = 256
CHUNK_BYTES = 1 << 22
HASHING = "one SHA-256 pass over the file"


def bench_cache(rows: int = ROWS) -> Rows:
    """Measure staging, publishing, reading and verifying one large entry.

    Parameters
    ----------
    rows : int
        Of the entry, each of 1280 float32 features.

    Returns
    -------
    list of dict
        One row a side: seconds, bytes, passes = seconds over those of one SHA-256 pass of the entry's file.
    """
    with tempfile.TemporaryDirectory() as folder:
        measured = _one_entry(Path(folder), rows)
    unit = next(row["seconds"] for row in measured if row["side"] == HASHING)
    return [
        {**row, "seconds": round(row["seconds"], 4), "passes": round(row["seconds"] / unit, 2)}
        for row in measured
    ]


def _one_entry(root: Path, n: int) -> Rows:
    """Measure the life of one large entry."""
    from cache.verify import verify

    store = Store(root / "store", private=root / "private")
    key, entry, staging, publishing = _written(store, n)
    size = entry.path.stat().st_size
    ready = time.monotonic() + 2.5  # files that have just changed are not remembered as verified
    data = entry.path.read_bytes()
    sides: dict[str, Callable[[], Any]] = {
        HASHING: lambda: _hashed(entry.path),
        "writing as many bytes, and fsync": lambda: _synced(root / "plain", data),
        "read, first: every byte verified": lambda: store.read(key),
        "read, verified before": lambda: store.read(key),
        "cache verify": lambda: verify(store, key),
    }
    rows = [
        {"side": "staging, all batches", "seconds": staging, "bytes": size},
        {"side": "publishing", "seconds": publishing, "bytes": size},
    ]
    _await(ready)
    return rows + [{"side": name, "seconds": _seconds(side), "bytes": size} for name, side in sides.items()]


def _written(store: Store, n: int) -> tuple[CacheKey, Entry, float, float]:
    """Write one entry; return it with the seconds of staging and of publishing."""
    ids = [f"train/class_{i % 100:03d}/image_{i:07d}.jpg" for i in range(n)]
    samples = [[name, hashlib.sha256(name.encode()).hexdigest()] for name in ids]
    key = CacheKey.from_ingredients({"backbone": "bench", "samples": samples})
    features = np.random.default_rng(0).random((BATCH, DIMENSION), dtype=np.float32)
    metadata = {
        "coordinates": {"backbone": "bench", "split": "train"},
        "class_names": [f"class {k}" for k in range(100)],
        "multi_label": False,
        "expected_rows": n,
    }
    started = time.perf_counter()
    with store.writer(key, metadata) as writer:
        for start in range(0, n, BATCH):
            stop = min(n, start + BATCH)
            labels = np.arange(start, stop) % 100
            writer.append(features[: stop - start], labels, ids[start:stop], stop=stop)
        staged = time.perf_counter()
        entry = writer.publish()
    return key, entry, staged - started, time.perf_counter() - staged


def _seconds(function: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _await(moment: float) -> None:
    """Sleep until a moment of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


def _hashed(path: Path) -> str:
    """Read a file once through SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _synced(path: Path, data: bytes) -> None:
    """Write bytes and sync them."""
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
