"""The door: a file that came from outside becomes an entry only after every byte was checked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache.atomic import forget, make_file, make_folder, write_errors
from cache.entry import Check, Entry, map_entry, open_entry, verify_values
from cache.errors import CacheReadError, CacheWriteError, DamagedEntryError, NewerFormatError
from cache.hashing import BytesDone
from cache.layout import DefectError, NewerDefectError
from cache.publish import publish
from cache.store import Store

_CHECK_ROWS = 4096


@dataclass(frozen=True)
class Admission:
    """What became of a file that arrived."""

    entry: Entry
    """The entry under the key, whichever bytes it has."""
    status: Literal["added", "present", "different"]
    """``different``: the same key is there with other values; the first ones stay."""
    deviation: float = 0.0
    """Largest difference of features relative to the largest magnitude; infinite for other shapes."""


@dataclass(frozen=True)
class Refusal:
    """What a person is told of a file that is refused, and where the file goes."""

    place: str | None = None
    """Where it came from; default: the path it lies at."""
    aside: Path | None = None
    """A name in quarantine, taken over from whatever was refused there before; None removes the file."""
    advice: str = "ask for it again"


def incoming_folder(store: Store) -> Path:
    """Return where files wait until they are verified."""
    return make_folder(store.root / "incoming", store.root)


def waiting_file(store: Store, name: str) -> Path:
    """Return a file in the incoming folder that others of the store may go on with, empty where it is new.

    A link, a FIFO, or a file that has another name as well lies there for no honest reason: it is removed.
    """
    path = incoming_folder(store) / name
    with write_errors(path, "making the file"), contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            path.unlink()
    return make_file(path, store.root)


def admit(
    store: Store,
    path: Path,
    *,
    check: Check | None = None,
    provenance: dict[str, Any] | None = None,
    refusal: Refusal | None = None,
    progress: BytesDone | None = None,
) -> Admission:
    """Verify a file that lies in the store's incoming folder and move it to its place.

    Parameters
    ----------
    store : Store
        Where it goes.
    path : Path
        The file; it is moved, or removed where the key is there already.
    check : callable, optional
        Is given the entry before it is believed and returns what is wrong with it, or None.
    provenance : dict, optional
        Goes beside the entry.
    refusal : Refusal, optional
        What becomes of a file that is refused; default: it is removed.
    progress : callable, optional
        Gets (bytes hashed, bytes in all).

    Raises
    ------
    DamagedEntryError
        A byte is wrong, or it is not what ``check`` expected.
    NewerFormatError
        A later version of the tool wrote it.
    CacheWriteError
        Disk full, no permission.
    """
    arrived, index_sha256 = _verified(store, path, check, refusal or Refusal(), progress)
    there = store.sound(arrived.key, to_write=True)
    if there is None:
        target = store.path_of(arrived.key)
        done = publish(store.root, path, target, provenance or {}, index_sha256)
        there = store.read(arrived.key, proved=done.proved)
        if done.placed:
            return Admission(there, "added")
    forget(path)
    if there.content_digest == arrived.content_digest:
        return Admission(there, "present")
    deviation = largest_deviation(there, arrived)
    store.notify(
        f"key {there.key.digest[:12]}...: arrived with other values (features differ by up to "
        f"{deviation:.2g} of their largest magnitude), the first ones stay"
    )
    return Admission(there, "different", deviation)


def largest_deviation(first: Entry, second: Entry) -> float:
    """Return max |a - b| / max |a| over the features; infinite where shapes, ids or labels differ."""
    same = first.features.shape == second.features.shape and np.array_equal(first.raw_ids, second.raw_ids)
    if not same or not np.array_equal(first.labels, second.labels):
        return float("inf")
    difference = magnitude = 0.0
    for start in range(0, len(first.features), _CHECK_ROWS):
        a = first.features[start : start + _CHECK_ROWS].astype(np.float64)
        b = second.features[start : start + _CHECK_ROWS].astype(np.float64)
        difference = max(difference, float(np.abs(a - b).max()))
        magnitude = max(magnitude, float(np.abs(a).max()))
    return difference / magnitude if magnitude else float(difference > 0)


def check_file(path: Path, check: Check) -> None:
    """Verify every byte of a file that stays where it is.

    Raises
    ------
    DamagedEntryError, NewerFormatError, CacheReadError
        As `admit`.
    """
    with refusing(path, Refusal()), open_entry(path) as opened:
        entry = map_entry(path, opened)
        verify_values(entry, opened)
        if reason := check(entry):
            raise DefectError(reason)


def _verified(
    store: Store, path: Path, check: Check | None, refusal: Refusal, progress: BytesDone | None
) -> tuple[Entry, str]:
    """Check every byte of a waiting file; return the entry and the digest of its index."""
    with refusing(path, refusal, gone=True), open_entry(path) as opened:
        entry = map_entry(path, opened)
        verify_values(entry, opened, progress, store.check)
        if check is not None and (reason := check(entry)):
            raise DefectError(reason)
        os.fsync(opened.file.fileno())
        return entry, opened.block.index_sha256


@contextlib.contextmanager
def refusing(path: Path, refusal: Refusal, *, gone: bool = False) -> Iterator[None]:
    """Say what is wrong with a file in the caller's words; ``gone``: it is set aside or removed."""
    place = refusal.place or path
    try:
        yield
    except NewerDefectError as error:
        raise NewerFormatError(f"{place}: {error}: update penultimate, then run again") from error
    except DefectError as error:
        moved = _out_of_the_way(path, refusal.aside) if gone else None
        raise DamagedEntryError(place, str(error), moved, refusal.advice) from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}: run again"
        raise CacheReadError(error.errno, reason, str(place)) from error


def _out_of_the_way(path: Path, aside: Path | None) -> Path | None:
    """Give a refused file the name it is kept under, or remove it."""
    if aside is not None:
        with contextlib.suppress(OSError, CacheWriteError):
            make_folder(aside.parent, aside.parent.parent)
            path.replace(aside)
            os.utime(aside)
            return aside
    forget(path)
    return None
