"""A place on any file system that fsspec knows: folder, s3, gcs, sftp, http, the Hugging Face hub.

::

    URL/data/KEY/SHA256.h5       the bytes of an entry, named by their own SHA-256
    URL/manifests/KEY.json       written last: what there is under a key, and which bytes
    URL/listings/                all manifests in one file, for those who list; a help, never needed

What lies under a name of its own SHA-256 is replaced only where it was found damaged, by the right bytes:
whoever reads meanwhile may see a mixture, which no digest fits. A manifest is written only where there is
none, or none that is right. Should two writers race on a file system that cannot create a file only
where it is absent, either manifest is complete and names bytes that are there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cache.atomic import write_all, write_errors
from cache.attempts import Attempts, failure, shown
from cache.errors import CacheWriteError, InvalidInputError, KeyMissingError, RemoteError
from cache.filesystems import FileSystem
from cache.hashing import BytesDone
from cache.listed import Listed
from cache.locks import Notify, silent
from cache.system import WRITE_FLAGS, kind_of

SMALL_BYTES = 1 << 20
"""Of the largest manifest."""
_KEY = re.compile(r"[0-9a-f]{64}\Z")


class Remote:
    """A remote place, with retries and typed errors; knows names and bytes, not what they mean.

    Parameters
    ----------
    url : str
        As fsspec has it: a folder, "s3://bucket/prefix", "sftp://host/path", "hf://datasets/user/name".
    options : dict, optional
        For the file system; credentials otherwise come from where its library looks for them.
    notify : callable, optional
        Gets one line when something is tried again.

    Raises
    ------
    InvalidInputError
        Nobody knows that kind of URL, it is empty, or the library for it is not installed.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None, notify: Notify = silent) -> None:
        if not url.strip():
            raise InvalidInputError("a remote is named by a folder or a URL, and this is empty: name one")
        self.url = shown(url)
        self.notify = notify
        self._attempts = Attempts(self.url, notify)
        try:
            if "://" in url:
                urlsplit(url)  # some libraries notice only when they connect
            self._place = FileSystem(url, options or {})
        except (ValueError, ImportError) as error:
            raise InvalidInputError(
                f"{self.url}: {error}: correct the URL or install penultimate[remote]"
            ) from error
        except Exception as error:
            raise RemoteError(None, failure("connecting", error), self.url) from error
        self.mounted = self._place.mounted
        """Whether reading runs at the speed of a disk."""
        self.readable_only = self._place.streams
        """Whether nothing can be written there."""

    def require_place(self) -> None:
        """Refuse a folder that is not there: mistyped, or not mounted.

        Raises
        ------
        RemoteError
            It is not there.
        """
        if not self.is_there():
            reason = "no such folder: correct it, mount what it is in, or push there first"
            raise RemoteError(errno.ENOENT, reason, self.url)

    def is_there(self) -> bool:
        """Whether there is a place to look in; object stores always have one."""
        return self._attempts.run("looking at it", self._place.is_there)

    def refuse_store(self) -> None:
        """Refuse the folder of a store, or one above: what lies there is laid out otherwise.

        Raises
        ------
        InvalidInputError
            It is one.
        """
        for name in ("entries", "features/entries"):
            if self._place.has_folder(name) and not self._place.has_folder("manifests"):
                raise InvalidInputError(
                    f"{self.url}: is a cache, not a remote: name another folder; what it holds can be pushed there "
                    "from it, with $PENULTIMATE_CACHE naming it"
                )

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, None where there is none."""
        return self._attempts.run(f"looking for {name}", lambda: self._place.size(name))

    def listing(self, folder: str) -> list[Listed]:
        """Return what lies in a folder as a listing tells of it, sorted by name."""
        found = self._attempts.run(f"listing {folder}", lambda: self._place.listing(folder))
        return sorted(found, key=lambda file: file.name)

    def manifests(self) -> list[Listed]:
        """Return the files that are named as manifests, sorted by key."""
        return [file for file in self.listing("manifests") if _KEY.match(file.name.removesuffix(".json"))]

    def keys(self) -> list[str]:
        """Return the keys that have a manifest, sorted."""
        return [file.name.removesuffix(".json") for file in self.manifests()]

    def read_small(self, name: str, *, size: int | None = None, most: int = SMALL_BYTES) -> bytes:
        """Return a small file whole.

        Parameters
        ----------
        name : str
            Which one.
        size : int, optional
            Its size, where a listing told it.
        most : int
            A larger one is refused unread.

        Raises
        ------
        KeyMissingError
            It is not there.
        InvalidInputError
            It is larger than ``most``.
        """
        absent = KeyMissingError(f"{self.url}: no {name}: push it, or correct the URL")
        if size is None and not self._place.streams:
            size = self.size(name)
            if size is None:
                raise absent
        upto = most + 1 if size is None else min(size, most + 1)
        try:
            raw = self._attempts.run(f"reading {name}", lambda: self._place.read(name, 0, upto))
        except FileNotFoundError:
            raise absent from None
        if len(raw) > most:
            raise InvalidInputError(f"{self.url}: {name} is larger than {most} bytes: push it again")
        return raw

    def create(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Write a small file where there is none, or none worth keeping; False where there is one."""
        if not replace and self.size(name) is not None:
            return False
        return self._attempts.run(f"writing {name}", lambda: self._place.create(name, data, replace=replace))

    def remove(self, name: str) -> None:
        """Remove a file; it need not be there."""
        self._attempts.run(f"removing {name}", lambda: self._place.discard(name))

    def upload(
        self, source: Path, name: str, progress: BytesDone | None = None, *, replace: bool = False
    ) -> bool:
        """Write a file under a name that says what its bytes are; False where it is there already.

        Raises
        ------
        RemoteError
            The remote cannot be reached, or holds another number of bytes after all attempts.
        """
        nbytes = source.stat().st_size
        there = self.size(name)
        if there == nbytes and not replace:
            return False

        def send() -> bool:
            self._place.put(source, name, progress, replace=there is not None)
            held = self._place.size(name)
            if held != nbytes:
                raise OSError(f"the remote holds {held} bytes where {nbytes} were sent")
            return True

        return self._attempts.run(f"uploading {name}", send)

    def digest(self, name: str, nbytes: int, progress: BytesDone | None = None) -> str | None:
        """Read a file and return its SHA-256; None where it is not there with so many bytes."""
        if self.size(name) != nbytes:
            return None
        digest, done = hashlib.sha256(), 0
        try:
            for piece in self._pieces(name, 0, nbytes, "verifying"):
                digest.update(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, nbytes)
        except KeyMissingError:
            return None
        return digest.hexdigest()

    def download(self, name: str, target: Path, nbytes: int, progress: BytesDone | None = None) -> int:
        """Fetch a file of a known size, going on behind what a former attempt left in ``target``.

        Returns
        -------
        int
            How many bytes were there before.

        Raises
        ------
        KeyMissingError
            It is not there, or no longer.
        RemoteError
            Nothing more came after all attempts; what came stays for the next one.
        CacheWriteError
            This disk is full, or refuses.
        """
        with _writable(target) as descriptor:
            before = os.fstat(descriptor).st_size
            if before > nbytes:
                os.ftruncate(descriptor, 0)
                before = 0
            _refuse_too_large(target, nbytes - before)
            done = before
            for piece in self._pieces(name, before, nbytes, "downloading"):
                with write_errors(target, "downloading"):
                    done = write_all(descriptor, piece, done)
                if progress is not None:
                    progress(done, nbytes)
        return before

    def _pieces(self, name: str, start: int, stop: int, doing: str) -> Iterator[bytes]:
        """Yield a file's bytes, asking again from where it broke off."""
        pieces: Iterator[bytes] | None = None

        def following() -> bytes:
            nonlocal pieces
            pieces = self._place.pieces(name, start, stop) if pieces is None else pieces
            try:
                return next(pieces)
            except StopIteration:
                pieces = None
                raise EOFError(f"ended after {start} of {stop} bytes") from None
            except Exception:
                pieces = None
                raise

        while start < stop:
            try:
                piece = self._attempts.run(f"{doing} {name}", following)
            except FileNotFoundError:
                raise KeyMissingError(f"{self.url}: {name} vanished: push it again") from None
            piece = piece[: stop - start]
            start += len(piece)
            yield piece


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[int]:
    """Open a file of our own to write to, never what a link points at, nor a file that has other names too."""
    with write_errors(target, "downloading"):
        descriptor = os.open(target, WRITE_FLAGS | os.O_CREAT, 0o666)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            reason = f"downloading failed: {kind_of(status.st_mode)} lies there: remove it, then run again"
            raise CacheWriteError(errno.EEXIST, reason, str(target))
        yield descriptor
    finally:
        with write_errors(target, "downloading"):
            os.close(descriptor)


def _refuse_too_large(target: Path, nbytes: int) -> None:
    """Refuse a download that this disk has no room for, before it fills the disk."""
    free = shutil.disk_usage(target.parent).free
    if nbytes > free:
        reason = f"{nbytes} bytes to download, {free} free: make room, then run again"
        raise CacheWriteError(errno.ENOSPC, reason, str(target))
