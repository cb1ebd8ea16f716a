"""One entry as one file: written for somebody else, and taken in from somebody else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cache.admit import Admission, Refusal, admit, incoming_folder, refusing
from cache.atomic import create_file, forget, temporary_name, write_errors
from cache.entry import open_entry, read_provenance
from cache.errors import InvalidInputError
from cache.inputs import require_file
from cache.keys import CacheKey, canonical_json, digest_of_key
from cache.layout import DefectError
from cache.locks import KeyLock
from cache.store import Store
from cache.system import file_opener, place_if_absent, sync_folder

_CHUNK_BYTES = 1 << 22


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
        The target exists, or what lies where its provenance would go; or it is named as provenance is.
    CacheWriteError
        The disk refused; no partial file stays, the provenance may.
    """
    entry = store.read(key)
    with write_errors(target, "exporting"):
        if target.is_dir():
            target = target / entry.path.name
        side = target.with_suffix(".json")
        if side == target:
            raise InvalidInputError(
                f"{target}: its provenance goes beside it under that name: name it ....h5"
            )
        provenance = canonical_json(read_provenance(entry.path))
        _refuse_taken(target, provenance)
        temporary = temporary_name(target)
        try:
            _copy(entry.path, temporary)
            if not create_file(side, provenance):
                _refuse_taken(target, provenance)
            if not place_if_absent(temporary, target):
                raise _taken(target)
            sync_folder(target.parent)
        finally:
            forget(temporary)
    return target


def import_entry(store: Store, source: Path, *, key: CacheKey | str | None = None) -> Admission:
    """Take in one entry file that somebody handed over; the file itself stays, whatever becomes of it.

    Parameters
    ----------
    store : Store
        Where it goes.
    source : Path
        An exported entry.
    key : CacheKey or str, optional
        The key it has to have; default: whatever its ingredients give.

    Raises
    ------
    InvalidInputError
        There is no such file, or it is something else than a file.
    DamagedEntryError, NewerFormatError, CacheWriteError
        As `admit`; no copy stays.
    """
    require_file(source, "name an exported entry")
    refusal = Refusal(str(source), advice="ask whoever gave it to export it again")
    with refusing(source, refusal), open_entry(source.resolve()) as opened:
        digest = opened.index.key_digest
        if key is not None and digest != digest_of_key(key):
            raise DefectError(f"holds the key {digest}, expected {digest_of_key(key)}")
    waiting = temporary_name(incoming_folder(store) / digest)
    with KeyLock(store.root / "locks", digest).held(store.notify):
        try:
            with write_errors(waiting.parent, "copying into the store"):
                _copy(source, waiting)
            return admit(
                store,
                waiting,
                check=lambda entry: None if entry.key.digest == digest else "changed while it was read",
                provenance=read_provenance(source),
                refusal=refusal,
            )
        finally:
            forget(waiting)


def _refuse_taken(target: Path, provenance: bytes) -> None:
    """Refuse a name that is taken; provenance that is the same was left by an export that was broken off."""
    if os.path.lexists(target):
        raise _taken(target)
    side = target.with_suffix(".json")
    if os.path.lexists(side):
        with open(side, "rb", opener=file_opener()) as file:
            if file.read(len(provenance) + 1) != provenance:
                raise _taken(side)


def _taken(path: Path) -> InvalidInputError:
    """Return what is to be said of a name that is taken."""
    return InvalidInputError(f"{path}: exists already: remove it, or name another file")


def _copy(source: Path, target: Path) -> None:
    """Copy a file's bytes and bring them to the disk."""
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
        writer.flush()
        os.fsync(writer.fileno())
