"""A place on any file system that fsspec knows: folder, s3, gcs, sftp, http, the Hugging Face hub.

::

    URL/data/KEY/SHA256.h5       the bytes of an entry, named by their own SHA-256, so never replaced
    URL/manifests/KEY.json       written last: what there is under a key, and which bytes

A manifest is written only where there is none. Should two writers race on a file system that cannot
create a file only where it is absent, either manifest is complete and names bytes that are there.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from cache.attempts import Attempts, failure, shown
from cache.errors import InvalidInputError, KeyMissingError, RemoteError
from cache.hashing import BytesDone
from cache.locks import Notify, silent

CHUNK_BYTES = 1 << 23
_MANIFEST_BYTES = 1 << 20
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az", "hf", "memory"}
"""There an object appears whole or not at all; elsewhere we write beside and rename."""
_SEEKING = {"ssh", "sftp"}
"""There a range is read by seeking: the library gives whole files to those who ask for a range."""
_MOUNTED = {"file", "local"}
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
        Nobody knows that kind of URL, or the library for it is not installed.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None, notify: Notify = silent) -> None:
        self.url = shown(url)
        self.notify = notify
        self._attempts = Attempts(self.url, notify)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **(options or {}))
        except (ValueError, ImportError) as error:
            raise InvalidInputError(
                f"{self.url}: {error}: correct the URL or install penultimate[remote]"
            ) from error
        except Exception as error:
            raise RemoteError(None, failure("connecting", error), self.url) from error
        protocol = self._fs.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)

    def exists(self, name: str) -> int | None:
        """Return the size of a file in bytes, None where there is none."""

        def ask() -> int | None:
            try:
                self._fs.invalidate_cache()
                info = self._fs.info(self._path(name))
            except FileNotFoundError:
                return None
            return int(info["size"] or 0) if info["type"] == "file" else None

        return self._attempts.run(f"looking for {name}", ask)

    def read_small(self, name: str) -> bytes:
        """Return a small file.

        Raises
        ------
        KeyMissingError
            It is not there.
        """
        try:
            return self._attempts.run(f"reading {name}", lambda: bytes(self._fs.cat_file(self._path(name))))[
                : _MANIFEST_BYTES + 1
            ]
        except FileNotFoundError:
            raise KeyMissingError(f"{self.url}: no {name}: push it, or correct the URL") from None

    def keys(self) -> list[str]:
        """Return the keys that have a manifest, sorted."""

        def ask() -> list[str]:
            self._fs.invalidate_cache()
            try:
                listed = self._fs.ls(self._path("manifests"), detail=False)
            except FileNotFoundError:
                return []
            names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in listed)
            return sorted(n[:-5] for n in names if n.endswith(".json") and _KEY.match(n[:-5]))

        return self._attempts.run("listing", ask)

    def create(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Write a small file where there is none; False where there is one.

        With ``replace`` one that is there goes first: for one that nobody can read.
        """
        path = self._path(name)
        if self.exists(name) is not None:
            if not replace:
                return False
            self._attempts.run(f"removing {name}", lambda: self._fs.rm_file(path))

        def write() -> bool:
            self._make_folder(path)
            if self._protocols & _OBJECT_STORES:
                return self._create_object(path, data)
            temporary = f"{path}.{secrets.token_hex(4)}.part"
            self._fs.pipe_file(temporary, data)
            return self._rename(temporary, path)

        return self._attempts.run(f"writing {name}", write)

    def upload(self, source: Path, name: str, progress: BytesDone | None = None) -> bool:
        """Write a file under a name that says what its bytes are; False where it is there already."""
        size = source.stat().st_size
        if self.exists(name) == size:
            return False
        path = self._path(name)

        def send() -> bool:
            self._make_folder(path)
            target = path if self._protocols & _OBJECT_STORES else f"{path}.{secrets.token_hex(4)}.part"
            try:
                self._send(source, target, progress)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(target)
                raise
            return target == path or self._rename(target, path)

        return self._attempts.run(f"uploading {name}", send)

    def download(self, name: str, target: Path, nbytes: int, progress: BytesDone | None = None) -> None:
        """Fetch a file of a known size, going on behind what a former attempt left in ``target``.

        Raises
        ------
        KeyMissingError
            It is not there, or no longer.
        RemoteError
            Nothing more came after all attempts; what came stays for the next one.
        """
        with target.open("ab") as file:
            if file.tell() > nbytes:
                file.truncate(0)
            while (done := file.tell()) < nbytes:
                stop = min(nbytes, done + CHUNK_BYTES)
                piece = self._piece(name, done, stop, nbytes)
                file.write(piece)
                file.flush()
                if progress is not None:
                    progress(file.tell(), nbytes)

    def _piece(self, name: str, start: int, stop: int, nbytes: int) -> bytes:
        """Fetch a range, or all that is missing from a server that only gives whole files."""

        def fetch() -> bytes:
            data = self._range(self._path(name), start, stop)
            if len(data) == nbytes:
                return data[start:]
            if len(data) != stop - start:
                raise OSError(f"{len(data)} bytes came where {stop - start} were asked for")
            return data

        try:
            return self._attempts.run(f"downloading {name}", fetch)
        except FileNotFoundError:
            raise KeyMissingError(f"{self.url}: {name} vanished: push it again") from None

    def _range(self, path: str, start: int, stop: int) -> bytes:
        """Read a range the way the file system can."""
        if self._protocols & _SEEKING:
            with self._fs.open(path, "rb") as file:
                file.seek(start)
                return bytes(file.read(stop - start))
        return bytes(self._fs.cat_file(path, start=start, end=stop))

    def _send(self, source: Path, target: str, progress: BytesDone | None) -> None:
        """Copy a file to the remote; on a mounted file system down to the disk."""
        size = source.stat().st_size
        if not self._protocols & _MOUNTED:
            self._fs.put_file(str(source), target, callback=_Bytes(size, progress))
            return
        with source.open("rb") as reader, Path(target).open("xb") as writer:
            while piece := reader.read(CHUNK_BYTES):
                writer.write(piece)
                if progress is not None:
                    progress(writer.tell(), size)
            writer.flush()
            os.fsync(writer.fileno())

    def _create_object(self, path: str, data: bytes) -> bool:
        """Create an object; where the store can, only if it is absent."""
        try:
            self._fs.pipe_file(path, data, mode="create")
        except (TypeError, NotImplementedError):
            self._fs.pipe_file(path, data)
        except Exception:  # every store has an error of its own for "it is there already"
            self._fs.invalidate_cache()
            if self._fs.exists(path):
                return False
            raise
        return True

    def _rename(self, temporary: str, path: str) -> bool:
        """Give a complete file its name, unless somebody was faster."""
        try:
            if self._fs.exists(path):
                return False
            self._fs.mv(temporary, path)
            return True
        finally:
            with contextlib.suppress(Exception):
                self._fs.rm_file(temporary)

    def _make_folder(self, path: str) -> None:
        """Make the folder of a file where the file system has folders."""
        if not self._protocols & _OBJECT_STORES:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)

    def _path(self, name: str) -> str:
        """Return the file system's own path of a name."""
        return f"{self._root.rstrip('/')}/{name}"


class _Bytes(Callback):  # type: ignore[misc]
    """Hands fsspec's progress on."""

    def __init__(self, size: int, progress: BytesDone | None) -> None:
        super().__init__(size=size)
        self._progress = progress

    def call(self, *_args: Any, **_kwargs: Any) -> None:
        """Tell how far the transfer is."""
        if self._progress is not None:
            self._progress(min(self.value, self.size), self.size)
