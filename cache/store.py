"""The store: a folder of entries, each under its key, found by its human coordinates.

::

    ROOT/entries/ab/abcd....h5     an entry, read-only, complete or not there
    ROOT/entries/ab/abcd....json   its provenance
    ROOT/staging/abcd.../          batches on their way
    ROOT/locks/                    who is writing what
    ROOT/quarantine/               files that were refused
    ROOT/trash/                    entries that were removed, until their grace is over
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cache.atomic import make_folder, set_aside, write_errors
from cache.catalogue import (
    Catalogue,
    EntryInfo,
    differences,
    files_below,
    info_of,
    recalled,
    summarise,
    summary_of,
)
from cache.entry import Entry, load, open_entry
from cache.errors import (
    AmbiguousKeyError,
    CacheError,
    CacheReadError,
    DamagedEntryError,
    InvalidInputError,
    KeyMissingError,
    NewerFormatError,
)
from cache.hashing import BytesDone
from cache.head import read_head
from cache.index import Index
from cache.keys import CacheKey, digest_of_key
from cache.layout import DefectError, NewerDefectError
from cache.locks import Notify, silent
from cache.rows import EntryMetadata
from cache.system import private_folder
from cache.verified import VerifiedFiles
from cache.writer import Writer

SUFFIX = ".h5"


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
        self, root: Path | str, *, private: Path | str | None = None, notify: Notify = silent
    ) -> None:
        self.root = Path(root)
        self.notify = notify
        folder = Path(private) if private is not None else private_folder()
        self.verified = VerifiedFiles(folder)
        self._catalogue = Catalogue(folder)

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
        with self.refusals(path):
            return load(path, digest_of_key(key), self.verified, progress, proved)

    def info(self, key: CacheKey | str) -> EntryInfo:
        """Return what a list shows of one entry.

        Raises
        ------
        KeyMissingError, DamagedEntryError, NewerFormatError, CacheReadError
            As `read`; only the index is checked.
        """
        path = self.path_of(key)
        status, index = self._index(path, digest_of_key(key))
        return summarise(path, index, status)

    def find(self, **coordinates: str | float) -> list[EntryInfo]:
        """Return the entries that have all these coordinates, sorted by all of theirs."""
        wanted = coordinates.items()
        return [
            info for info in self.list() if all(info.coordinates.get(name) == value for name, value in wanted)
        ]

    def find_one(self, **coordinates: str | float) -> EntryInfo:
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
        """
        known = self._catalogue.recall()
        infos, fresh = [], []
        for digest, path in files_below(self.root / "entries", SUFFIX):
            try:
                status = path.lstat()
                summary = recalled(path, status, known)
                if summary is None:
                    status, summary = read_head(path, digest) or self._summary(path, digest)
                    fresh.append((status, summary))
                infos.append(info_of(path, status, summary, partial(self._ingredient_digests, path, digest)))
            except FileNotFoundError:
                continue
            except CacheError as error:
                self.notify(str(error))
        self._catalogue.remember(fresh)
        return sorted(
            infos, key=lambda info: (sorted((n, str(v)) for n, v in info.coordinates.items()), info.key)
        )

    def keys(self) -> Iterator[str]:
        """Yield the digests under which files lie, sorted."""
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
        if not os.path.lexists(path):
            raise KeyMissingError(f"{path}: no such entry: nothing to remove")
        trash = make_folder(self.root / "trash" / digest_of_key(key), self.root)
        with write_errors(path, "moving to the trash"):
            path.replace(trash / path.name)
            side = path.with_suffix(".json")
            if side.exists():
                side.replace(trash / side.name)
            os.utime(trash)
        return trash / path.name

    def __contains__(self, key: object) -> bool:
        """Whether an entry with a sound index lies under the key; its values are not hashed."""
        if not isinstance(key, CacheKey | str):
            return False
        try:
            self.info(key)
        except KeyMissingError:
            return False
        return True

    def path_of(self, key: CacheKey | str) -> Path:
        """Return where the entry of a key lies or would lie."""
        digest = digest_of_key(key)
        return self.root / "entries" / digest[:2] / f"{digest}{SUFFIX}"

    def staging_folder(self, key: CacheKey | str) -> Path:
        """Return where the rows of a key are staged."""
        return self.root / "staging" / digest_of_key(key)

    def _summary(self, path: Path, digest: str) -> tuple[os.stat_result, dict[str, Any]]:
        """Summarise an entry from its whole index."""
        status, index = self._index(path, digest)
        return status, summary_of(index)

    def _ingredient_digests(self, path: Path, digest: str) -> Mapping[str, str]:
        """Read the digests that a list leaves out, and remember them; none of an entry that is refused."""
        try:
            status, summary = self._summary(path, digest)
        except CacheError as error:
            self.notify(str(error))
            return {}
        self._catalogue.remember([(status, summary)])
        return summary["ingredient_digests"]  # type: ignore[no-any-return]

    def _index(self, path: Path, digest: str) -> tuple[os.stat_result, Index]:
        """Read and check the index of one entry."""
        with self.refusals(path), open_entry(path) as opened:
            if opened.index.key.digest != digest:
                raise DefectError(f"holds the key {opened.index.key.digest}, expected {digest}")
            return opened.status, opened.index

    @contextlib.contextmanager
    def refusals(self, path: Path) -> Iterator[None]:
        """Turn what reading an entry found out into typed errors, and set a damaged file aside."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise KeyMissingError(f"{path}: no such entry: extract it, or pull it") from None
        except NewerDefectError as error:
            raise NewerFormatError(f"{path}: {error}: update penultimate, then run again") from error
        except DefectError as error:
            raise self._set_aside(path, str(error)) from error
        except OSError as error:
            reason = (
                f"cannot be read: {error.strerror or error}: mend permissions or the disk, then run again"
            )
            raise CacheReadError(error.errno, reason, str(path)) from error

    def _set_aside(self, path: Path, reason: str) -> DamagedEntryError:
        """Move a file that cannot be trusted out of the way and say so."""
        error = DamagedEntryError(path, reason, set_aside(path, self.root / "quarantine"))
        self.notify(str(error))
        return error
