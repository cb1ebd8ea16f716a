"""The door: a file that came from outside becomes an entry only after every byte was checked."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache.atomic import make_folder, set_aside, temporary_name, write_errors, write_file
from cache.entry import Entry, map_entry, open_entry, read_provenance, verify_values
from cache.errors import (
    CacheReadError,
    DamagedEntryError,
    InvalidInputError,
    KeyMissingError,
    NewerFormatError,
)
from cache.hashing import BytesDone
from cache.keys import CacheKey, canonical_json, digest_of_key
from cache.layout import DefectError, NewerDefectError
from cache.store import Store
from cache.system import place_if_absent, sync_folder

_CHUNK_BYTES = 1 << 22
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


def incoming_folder(store: Store) -> Path:
    """Return where files wait until they are verified."""
    return make_folder(store.root / "incoming")


def admit(
    store: Store,
    path: Path,
    *,
    key: CacheKey | str | None = None,
    content_digest: str | None = None,
    provenance: dict[str, Any] | None = None,
    progress: BytesDone | None = None,
) -> Admission:
    """Verify a file that lies in the store's incoming folder and move it to its place.

    Parameters
    ----------
    store : Store
        Where it goes.
    path : Path
        The file; it is moved, or removed where the key is there already.
    key : CacheKey or str, optional
        The key it has to have; default: whatever its ingredients give.
    content_digest : str, optional
        The digest that its values have to have.
    provenance : dict, optional
        Goes beside the entry.
    progress : callable, optional
        Gets (bytes hashed, bytes in all).

    Raises
    ------
    DamagedEntryError
        A byte is wrong, or it has another key; the file was set aside.
    NewerFormatError
        A later version of the tool wrote it.
    CacheWriteError
        Disk full, no permission.
    """
    arrived = _verified(store, path, None if key is None else digest_of_key(key), content_digest, progress)
    try:
        there = store.read(arrived.key)
    except KeyMissingError:
        return Admission(_publish(store, arrived, provenance or {}), "added")
    path.unlink(missing_ok=True)
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


def export_entry(store: Store, key: CacheKey | str, target: Path) -> Path:
    """Copy one verified entry to a file that can be handed over; its provenance goes beside it.

    Parameters
    ----------
    store : Store
        Where it lies.
    key : CacheKey or str
        Which one.
    target : Path
        A file that does not exist yet, or a folder.

    Raises
    ------
    KeyMissingError, DamagedEntryError
        As `Store.read`.
    InvalidInputError
        The target exists.
    CacheWriteError
        The disk refused; no partial file stays.
    """
    entry = store.read(key)
    if target.is_dir():
        target = target / entry.path.name
    if target.exists():
        raise InvalidInputError(f"{target}: exists already: remove it, or name another file")
    temporary = temporary_name(target)
    try:
        _copy(entry.path, temporary)
        with write_errors(target, "exporting"):
            place_if_absent(temporary, target)
            sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    write_file(target.with_suffix(".json"), canonical_json(read_provenance(entry.path)))
    return target


def import_entry(store: Store, source: Path, *, key: CacheKey | str | None = None) -> Admission:
    """Take in one entry file that somebody handed over; the file itself stays.

    Raises
    ------
    InvalidInputError
        There is no such file.
    DamagedEntryError, NewerFormatError, CacheWriteError
        As `admit`.
    """
    if not source.is_file():
        raise InvalidInputError(f"{source}: no such file: name an exported entry")
    waiting = temporary_name(incoming_folder(store) / source.name)
    try:
        _copy(source, waiting)
        return admit(store, waiting, key=key, provenance=read_provenance(source))
    finally:
        waiting.unlink(missing_ok=True)


def _verified(
    store: Store, path: Path, key: str | None, content_digest: str | None, progress: BytesDone | None
) -> Entry:
    """Check every byte of a waiting file."""
    try:
        with open_entry(path) as opened:
            if key is not None and opened.index.key.digest != key:
                raise DefectError(f"holds the key {opened.index.key.digest}, expected {key}")
            if content_digest not in {None, opened.index.content_digest}:
                raise DefectError("is sound, but holds other values than was announced")
            entry = map_entry(path, opened)
            verify_values(entry, opened, progress)
            os.fsync(opened.file.fileno())
            return entry
    except NewerDefectError as error:
        raise NewerFormatError(f"{path}: {error}: update penultimate, then run again") from error
    except DefectError as error:
        moved = set_aside(path, store.root / "quarantine")
        raise DamagedEntryError(path, str(error), moved) from error
    except OSError as error:
        raise CacheReadError(
            error.errno, f"cannot be read: {error.strerror}: run again", str(path)
        ) from error


def _publish(store: Store, arrived: Entry, provenance: dict[str, Any]) -> Entry:
    """Move a verified file to its place."""
    target = store.path_of(arrived.key)
    make_folder(target.parent)
    write_file(target.with_suffix(".json"), canonical_json(provenance))
    with write_errors(target, "publishing"):
        arrived.path.chmod(arrived.path.stat().st_mode & ~0o222)
        place_if_absent(arrived.path, target)
        sync_folder(target.parent)
    return store.read(arrived.key)


def _copy(source: Path, target: Path) -> None:
    """Copy a file's bytes and bring them to the disk."""
    with write_errors(target, "copying"), source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
        writer.flush()
        os.fsync(writer.fileno())


def parse_provenance(raw: bytes) -> dict[str, Any]:
    """Return a provenance that came from outside, or nothing where it is not one."""
    try:
        plain = json.loads(raw)
        canonical_json(plain)
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
