"""What lies in a store, at a glance: the heads of indexes, remembered so that a long list is fast."""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.digests import CLOCK_RESOLUTION_SECONDS
from cache.index import Index
from cache.keys import sha256_of
from cache.memory import Memory, stamp_of
from cache.refusals import unreadable

_TABLE = """create table if not exists catalogue_2 (
    device text, inode text, size integer, mtime_ns integer, ctime_ns integer, summary text,
    primary key (device, inode)) without rowid"""
_INSERT = "insert or replace into catalogue_2 values (?, ?, ?, ?, ?, ?)"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_PREFIX = re.compile(r"[0-9a-f]{2}\Z")
_DIGESTS = "ingredient_digests"

Known = Mapping[tuple[Any, ...], str]
"""Remembered summaries by the stamp of their files."""


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


class DigestsOnDemand(Mapping[str, str]):
    """The digests of an entry's ingredients, read when somebody asks: they need the whole index.

    Parameters
    ----------
    load : callable
        Returns them; called once.
    """

    def __init__(self, load: Callable[[], Mapping[str, str]]) -> None:
        self._load = load
        self._digests: Mapping[str, str] | None = None

    def _loaded(self) -> Mapping[str, str]:
        """Return the digests, read now or before."""
        if self._digests is None:
            self._digests = self._load()
        return self._digests

    def __getitem__(self, name: str) -> str:
        return self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def __repr__(self) -> str:
        return "DigestsOnDemand(...)" if self._digests is None else f"DigestsOnDemand({self._digests})"


def summarise(path: Path, index: Index, status: os.stat_result) -> EntryInfo:
    """Return what a list shows of an entry."""
    return info_of(path, status, summary_of(index))


class Catalogue:
    """Remembers the summaries of entries by device, inode, size, mtime and ctime.

    Parameters
    ----------
    folder : Path
        This user's own. Where it cannot be used, the head of every index is read each time.
    """

    def __init__(self, folder: Path) -> None:
        self._memory = Memory(folder / "catalogue.sqlite", _TABLE)

    def recall(self) -> dict[tuple[Any, ...], str]:
        """Return all remembered summaries by stamp."""
        return {row[:5]: row[5] for row in self._memory.recall("select * from catalogue_2")}

    def remember(self, fresh: Iterable[tuple[os.stat_result, Mapping[str, Any]]]) -> None:
        """Keep summaries of files that have rested long enough to be told from a later state."""
        latest = time.time_ns() - int(CLOCK_RESOLUTION_SECONDS * 1e9)
        rows = [
            (*stamp_of(status), _sealed(summary)) for status, summary in fresh if status.st_ctime_ns <= latest
        ]
        if rows:
            self._memory.remember(_INSERT, rows)


def files_below(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Yield the digest and the path of every file that is named as an entry, sorted.

    Raises
    ------
    CacheReadError
        The folder, or one in it, cannot be listed; where there is none, nothing is yielded.
    """
    for parent in _names_in(folder):
        if _PREFIX.match(parent) and (folder / parent).is_dir():
            for name in _names_in(folder / parent):
                digest = name.removesuffix(suffix)
                if name != digest and _DIGEST.match(digest) and digest[:2] == parent:
                    yield digest, folder / parent / name


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none where it is not there."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def recalled(path: Path, status: os.stat_result, known: Known) -> dict[str, Any] | None:
    """Return the remembered summary of this very state of a file, if there is one for its name."""
    summary = _unsealed(known.get(stamp_of(status), ""))
    return summary if summary is not None and summary["key"] == path.stem else None


def info_of(
    path: Path,
    status: os.stat_result,
    summary: Mapping[str, Any],
    load: Callable[[], Mapping[str, str]] | None = None,
) -> EntryInfo:
    """Join a summary with what the file system tells; ``load`` returns the digests that it may lack."""
    used = max(status.st_atime, status.st_mtime)
    facts = dict(summary)
    if _DIGESTS not in facts:
        facts[_DIGESTS] = DigestsOnDemand(load or dict)
    return EntryInfo(path=path, nbytes=status.st_size, modified=status.st_mtime, used=used, **facts)


def summary_of(index: Index) -> dict[str, Any]:
    """Return the part of an `EntryInfo` that the index alone tells."""
    features = index.arrays["features"]
    return {
        "classes": len(index.class_names),
        "coordinates": dict(index.coordinates),
        "dimension": features.shape[1],
        "dtype": features.dtype,
        "excluded": len(index.excluded),
        _DIGESTS: {name: sha256_of(value) for name, value in index.ingredients.items()},
        "key": index.key_digest,
        "multi_label": index.multi_label,
        "rows": index.rows,
    }


def differences(found: Sequence[EntryInfo]) -> str:
    """Say in which coordinates entries differ, and name each by the beginning of its key."""
    names = sorted({name for info in found for name in info.coordinates})
    differing = [name for name in names if len({info.coordinates.get(name) for info in found}) > 1]
    lines = [
        f"{info.key[:12]} ({', '.join(f'{name}={info.coordinates.get(name)}' for name in differing)})"
        for info in found[:5]
    ]
    return f"name one of {'; '.join(lines)}{' ...' if len(found) > 5 else ''}"


def _sealed(summary: Mapping[str, Any]) -> str:
    """Spell a summary with a check sum: sqlite does not notice a byte that changed on the disk."""
    text = json.dumps(dict(summary))
    return f"{zlib.crc32(text.encode()):08x}{text}"


def _unsealed(sealed: object) -> dict[str, Any] | None:
    """Return a summary as it was remembered, None where there is none."""
    if (
        not isinstance(sealed, str)
        or len(sealed) < 10
        or f"{zlib.crc32(sealed[8:].encode()):08x}" != sealed[:8]
    ):
        return None
    summary: dict[str, Any] = json.loads(sealed[8:])
    return summary
