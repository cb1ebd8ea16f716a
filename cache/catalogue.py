"""What lies in a store, at a glance: summaries of indexes, remembered so that a long list is fast."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.digests import CLOCK_RESOLUTION_SECONDS
from cache.index import Index
from cache.keys import sha256_of

_TABLE = """create table if not exists catalogue (
    device text, inode text, size integer, mtime_ns integer, ctime_ns integer, summary text,
    primary key (device, inode)) without rowid"""


@dataclass(frozen=True)
class EntryInfo:
    """What a list shows of an entry; the values behind it were not verified."""

    key: str
    """64 hex digits."""
    path: Path
    coordinates: Mapping[str, str | int | float]
    rows: int
    dimension: int
    dtype: str
    """numpy's spelling: "<f4" or "<f2"."""
    classes: int
    multi_label: bool
    excluded: int
    """Input rows without features."""
    nbytes: int
    """Size of the file."""
    modified: float
    """When it was published here, seconds since the epoch."""
    used: float
    """When it was last read, as far as the file system tells; at least ``modified``."""
    ingredient_digests: Mapping[str, str]
    """SHA-256 of each ingredient of the key: shows in what two entries differ."""


def summarise(path: Path, index: Index, status: os.stat_result) -> EntryInfo:
    """Return what a list shows of an entry."""
    return _info(path, status, _summary(index))


class Catalogue:
    """Remembers the summaries of entries by device, inode, size, mtime and ctime.

    Parameters
    ----------
    folder : Path
        This user's own. Where it cannot be used, every index is read each time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "catalogue.sqlite"

    def recall(self) -> dict[tuple[Any, ...], str]:
        """Return all remembered summaries by stamp."""
        with contextlib.suppress(sqlite3.Error, OSError), self._connection() as connection:
            rows = connection.execute("select * from catalogue").fetchall()
            return {row[:5]: row[5] for row in rows}
        return {}

    def remember(self, fresh: Iterable[tuple[os.stat_result, Index]]) -> None:
        """Keep summaries of files that have rested long enough to be told from a later state."""
        latest = time.time_ns() - int(CLOCK_RESOLUTION_SECONDS * 1e9)
        rows = [
            (*stamp_of(status), json.dumps(_summary(index)))
            for status, index in fresh
            if status.st_ctime_ns <= latest
        ]
        if not rows:
            return
        with contextlib.suppress(sqlite3.Error, OSError), self._connection() as connection, connection:
            connection.executemany("insert or replace into catalogue values (?, ?, ?, ?, ?, ?)", rows)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=10.0)
        try:
            connection.execute(_TABLE)
            yield connection
        finally:
            connection.close()


def recalled(path: Path, status: os.stat_result, known: Mapping[tuple[Any, ...], str]) -> EntryInfo | None:
    """Return the remembered summary of this very state of a file, if there is one for its name."""
    text = known.get(stamp_of(status))
    if text is None:
        return None
    info = _info(path, status, json.loads(text))
    return info if info.key == path.stem else None


def stamp_of(status: os.stat_result) -> tuple[str, str, int, int, int]:
    """What tells one state of a file from every other."""
    return (
        str(status.st_dev), str(status.st_ino), status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )  # fmt: skip


def _summary(index: Index) -> dict[str, Any]:
    """Return the part of an `EntryInfo` that the index alone tells."""
    features = index.arrays["features"]
    return {
        "classes": len(index.class_names),
        "coordinates": dict(index.coordinates),
        "dimension": features.shape[1],
        "dtype": features.dtype,
        "excluded": len(index.excluded),
        "ingredient_digests": {name: sha256_of(value) for name, value in index.ingredients.items()},
        "key": index.key.digest,
        "multi_label": index.multi_label,
        "rows": index.rows,
    }


def _info(path: Path, status: os.stat_result, summary: dict[str, Any]) -> EntryInfo:
    """Join a summary with what the file system tells."""
    used = max(status.st_atime, status.st_mtime)
    return EntryInfo(path=path, nbytes=status.st_size, modified=status.st_mtime, used=used, **summary)


def info_to_json(info: EntryInfo) -> dict[str, Any]:
    """Return a plain form for ``--json``."""
    return {**asdict(info), "path": str(info.path)}
