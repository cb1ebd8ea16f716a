"""The store: a folder of entries, each under its key, found by its human coordinates.

::

    ROOT/entries/ab/abcd....h5     an entry, read-only, complete or not there
    ROOT/entries/ab/abcd....json   its provenance
    ROOT/staging/abcd.../          batches on their way
    ROOT/incoming/                 files from outside, until they are verified
    ROOT/locks/                    who is writing what
    ROOT/quarantine/               files that were refused
    ROOT/trash/                    entries that were removed, until their grace is over
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.atomic import write_errors
from cache.catalogue import (
    Catalogue,
    EntryInfo,
    differences,
    files_below,
    summarise,
)
from cache.entry import Check, Entry, load, open_entry
from cache.errors import (
    AmbiguousKeyError,
    CacheWriteError,
    DamagedEntryError,
    InvalidInputError,
    KeyMissingError,
)
from cache.hashing import BytesDone
from cache.index import Index
from cache.inventory import SUFFIX, Inventory
from cache.keys import CacheKey, digest_of_key
from cache.layout import DefectError
from cache.locks import Notify, silent
from cache.refusals import refusals
from cache.rows import EntryMetadata
from cache.system import private_folder
from cache.trash import throw_away
from cache.verified import VerifiedFiles
from cache.writer import Writer


class Store:
    """Entries in a folder, shared by any number of readers and writers.

    Parameters
    ----------
    root : Path or str
        The folder; made by the first writer.
    private : Path, optional
        Where this user alone remembers what was verified; default: the user's state folder.
    notify : callable, optional
        Gets one line for a person now and then: who holds a lock, what was set aside.
    check : callable, optional
        Is given every entry that is verified, before it is believed, and says what is wrong with it beyond its
        bytes, or None: what its key commits to means nothing to the cache.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> key = CacheKey.from_ingredients({"backbone": "resnet50", "recipe_version": 1})
    >>> metadata = {"coordinates": {"backbone": "resnet50", "split": "test"}, "class_names": ["cat", "dog"],
    ...             "multi_label": False, "expected_rows": 2}
    >>> with store.writer(key, metadata) as writer:
    ...     writer.append(np.ones((2, 3), np.float32), np.array([0, 1]), ["a.jpg", "b.jpg"], stop=2)
    ...     entry = writer.publish()
    >>> entry.features.shape, entry.ids, store.find(backbone="resnet50")[0].rows
    ((2, 3), ('a.jpg', 'b.jpg'), 2)
    """

    def __init__(
        self,
        root: Path | str,
        *,
        private: Path | str | None = None,
        notify: Notify = silent,
        check: Check | None = None,
    ) -> None:
        self.root = Path(root)
        self.notify = notify
        self.check = check
        folder = Path(private) if private is not None else private_folder()
        self.verified = VerifiedFiles(folder, checked=check is not None)
        self._inventory = Inventory(self, Catalogue(folder))

    def writer(
        self, key: CacheKey, metadata: Mapping[str, Any] | EntryMetadata, *, timeout: float | None = None
    ) -> Writer:
        """Return a writer of one entry, to be entered with ``with``.

        Parameters
        ----------
        key : CacheKey
            From all ingredients.
        metadata : mapping
            ``coordinates`` (flat), ``class_names``, ``multi_label``, ``expected_rows`` and, optional,
            ``provenance`` (goes beside the entry, never into it).
        timeout : float, optional
            Seconds to wait for somebody else who writes the same key; default: as long as it takes.

        Raises
        ------
        InvalidInputError
            The metadata are not as said.
        """
        if not isinstance(key, CacheKey):
            raise InvalidInputError("a writer needs a CacheKey with its ingredients, not a digest")
        checked = metadata if isinstance(metadata, EntryMetadata) else EntryMetadata.from_mapping(metadata)
        return Writer(self, key, checked, timeout)

    def read(
        self, key: CacheKey | str, *, progress: BytesDone | None = None, proved: str | None = None
    ) -> Entry:
        """Return a verified entry.

        Parameters
        ----------
        key : CacheKey or str
            Which one.
        progress : callable, optional
            Gets (bytes hashed, bytes in all) while it is verified.
        proved : str, optional
            Index digest of a file that was built and proved a moment ago; it is not hashed once more.

        Raises
        ------
        KeyMissingError
            No such entry.
        DamagedEntryError
            There was one and a byte of it is wrong; it was set aside.
        NewerFormatError
            A later version of the tool wrote it.
        CacheReadError
            No permission, or the device failed; the file stays where it is.
        """
        path = self.path_of(key)
        with refusals(path, self.root):
            return load(path, digest_of_key(key), self.verified, progress, proved, self.check)

    def info(self, key: CacheKey | str) -> EntryInfo:
        """Return what a list shows of one entry.

        Raises
        ------
        KeyMissingError, DamagedEntryError, NewerFormatError, CacheReadError
            As `read`; only the index is checked.
        """
        path = self.path_of(key)
        status, index = self.index(path, digest_of_key(key))
        return summarise(path, index, status)

    def find(self, /, **coordinates: str | float) -> list[EntryInfo]:
        """Return the entries that have all these coordinates, sorted by all of theirs."""
        wanted = coordinates.items()
        return [
            info for info in self.list() if all(info.coordinates.get(name) == value for name, value in wanted)
        ]

    def find_one(self, /, **coordinates: str | float) -> EntryInfo:
        """Return the only entry that has all these coordinates.

        Raises
        ------
        KeyMissingError
            There is none.
        AmbiguousKeyError
            There are several; the message says in what they differ.
        """
        found = self.find(**coordinates)
        asked = ", ".join(f"{name}={value}" for name, value in coordinates.items()) or "no coordinates"
        if not found:
            raise KeyMissingError(f"{self.root}: no entry with {asked}: extract it, or pull it")
        if len(found) > 1:
            raise AmbiguousKeyError(f"{self.root}: {len(found)} entries with {asked}: {differences(found)}")
        return found[0]

    def list(self) -> list[EntryInfo]:
        """Return all entries, sorted by their coordinates; the head of each index is read once, then remembered.

        What is wrong with the others is told through ``notify``; damaged ones are set aside. An entry that
        is damaged further behind is listed until somebody reads it.

        Raises
        ------
        CacheReadError
            The folder of the entries cannot be listed.
        """
        return self._inventory.list()

    def keys(self) -> Iterator[str]:
        """Yield the digests under which files lie, sorted.

        Raises
        ------
        CacheReadError
            The folder of the entries cannot be listed.
        """
        return (digest for digest, _ in files_below(self.root / "entries", SUFFIX))

    def remove(self, key: CacheKey | str) -> Path:
        """Move an entry to the trash and return where it lies now; readers keep what they have open.

        Raises
        ------
        KeyMissingError
            No such entry.
        CacheWriteError
            No permission.
        """
        path = self.path_of(key)
        missing = KeyMissingError(f"{path}: no such entry: nothing to remove")
        if not os.path.lexists(path):
            raise missing
        with write_errors(path, "moving to the trash"):
            try:
                return throw_away(path, self.root)
            except FileNotFoundError:
                raise missing from None

    def __contains__(self, key: object) -> bool:
        """Whether an entry with a sound index lies under the key; its values are not hashed."""
        if not isinstance(key, CacheKey | str):
            return False
        try:
            self.info(key)
        except KeyMissingError as error:
            self._tell_of_damage(error)
            return False
        return True

    def sound(self, key: CacheKey | str, *, to_write: bool = False) -> Entry | None:
        """Return a verified entry, None where there is none that is sound; damage is told.

        Parameters
        ----------
        key : CacheKey or str
            Which one.
        to_write : bool
            The caller wants to put a sound one in its place.

        Raises
        ------
        CacheWriteError
            It is to be written, and a damaged file in its place cannot be moved.
        NewerFormatError, CacheReadError
            As `read`.
        """
        try:
            return self.read(key)
        except DamagedEntryError as error:
            if to_write and error.moved_to is None:
                reason = f"{error.reason}, and {error.advice}"
                raise CacheWriteError(errno.EEXIST, reason, str(error.path)) from error
            self._tell_of_damage(error)
        except KeyMissingError:
            pass
        return None

    def path_of(self, key: CacheKey | str) -> Path:
        """Return where the entry of a key lies or would lie."""
        digest = digest_of_key(key)
        return self.root / "entries" / digest[:2] / f"{digest}{SUFFIX}"

    def staging_folder(self, key: CacheKey | str) -> Path:
        """Return where the rows of a key are staged."""
        return self.root / "staging" / digest_of_key(key)

    def index(self, path: Path, digest: str) -> tuple[os.stat_result, Index]:
        """Read and check the index of one entry."""
        with refusals(path, self.root), open_entry(path) as opened:
            if opened.index.key_digest != digest:
                raise DefectError(f"holds the key {opened.index.key_digest}, expected {digest}")
            return opened.status, opened.index

    def _tell_of_damage(self, error: KeyMissingError) -> None:
        """Tell of a file that was set aside where the caller goes on without it."""
        if isinstance(error, DamagedEntryError):
            self.notify(str(error))
