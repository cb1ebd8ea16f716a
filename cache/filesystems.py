"""What differs between the kinds of file system that fsspec knows; no retries, errors as they come.

- Object stores (s3, gcs, azure): an object appears whole or not at all, and "create only if absent" is one
  request. hf:// is treated as one: every file is a commit of its own, which is whole or not there, but
  there is no create-if-absent (it looks first, then writes: of two who race the later commit wins), and
  a write that is interrupted by an exception commits what it has: the size is therefore checked after
  every upload, and before anything is taken as present. Of these s3 alone was run against a server; the
  others are written from their libraries' text.
- Folders and sftp: written beside, synced where it can be, renamed. A folder's hard link is
  create-if-absent; on sftp it is looked first, then renamed.
- http: reading only. A range is asked for; from a server that ignores it the bytes before are skipped.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from cache.hashing import BytesDone
from cache.listed import Listed, listed, seconds_of
from cache.system import place_if_absent, sync_folder

PIECE_BYTES = 1 << 23
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az", "hf", "memory"}
_SEEKING = {"ssh", "sftp"}
"""There a range is read by seeking: the library gives whole files to those who ask for a range."""
_MOUNTED = {"file", "local"}
_STREAMING = {"http", "https"}
_ABANDONED_SECONDS = 86_400.0
"""A temporary file this old belongs to a push that was killed."""


class FileSystem:
    """A place on some file system: names below a root, and how they are read and written there.

    Parameters
    ----------
    url : str
        As fsspec has it.
    options : dict
        For the file system.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url, **options)
        protocol = self._fs.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self.mounted = bool(self._protocols & _MOUNTED)
        """Whether reading runs at the speed of a disk."""
        self.streams = bool(self._protocols & _STREAMING)
        """Whether a file comes in one answer, whose size is known when it is over."""
        self._whole = bool(self._protocols & _OBJECT_STORES)

    def size(self, name: str) -> int | None:
        """Return the size of a file, None where there is none, 0 of what holds no bytes: a FIFO, a device."""
        try:
            self._fs.invalidate_cache()
            info = self._fs.info(self._path(name))
        except FileNotFoundError:
            return None
        if info["type"] == "other":
            return 0
        return int(info["size"] or 0) if info["type"] == "file" else None

    def listing(self, folder: str) -> list[Listed]:
        """Return what lies in a folder; nothing where there is no folder."""
        self._fs.invalidate_cache()
        try:
            infos = self._fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return [listed(info) for info in infos]

    def is_there(self) -> bool:
        """Whether there is a place to look in; of object stores that is known by what lies there."""
        if self._whole or self.streams:
            return True
        try:
            self._fs.info(self._root)
        except FileNotFoundError:
            return False
        return True

    def has_folder(self, name: str) -> bool:
        """Whether a folder lies there; of file systems without folders that is not known: False."""
        return self.mounted and Path(self._path(name)).is_dir()

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return a range of a file; fewer bytes where it ends."""
        with contextlib.closing(self.pieces(name, start, stop)) as pieces:
            return b"".join(pieces)

    def pieces(self, name: str, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yield a range of a file piece by piece; it ends early where the file does."""
        path = self._path(name)
        if self.streams:
            yield from self._stream(path, start, stop)
            return
        while start < stop:
            piece = self._range(path, start, min(stop, start + PIECE_BYTES))
            if not piece:
                return
            yield piece
            start += len(piece)

    def put(self, source: Path, name: str, progress: BytesDone | None, *, replace: bool) -> None:
        """Copy a file to a name, whole or not at all; one that is there stays unless it is to be replaced."""
        path = self._path(name)
        if self._whole:
            try:
                self._fs.put_file(str(source), path, callback=_Bytes(source.stat().st_size, progress))
            except BaseException:
                self._discard(path)
                raise
            return
        self._make_folder(path)
        self._sweep(path.rsplit("/", 1)[0])
        temporary = f"{path}.{secrets.token_hex(4)}.part"
        try:
            self._send(source, temporary, progress)
            self._place(temporary, path, replace=replace)
        finally:
            self._discard(temporary)

    def create(self, name: str, data: bytes, *, replace: bool) -> bool:
        """Write a small file; False where there is one that is not to be replaced."""
        path = self._path(name)
        if self._whole:
            return self._create_object(path, data, replace=replace)
        self._make_folder(path)
        temporary = f"{path}.{secrets.token_hex(4)}.part"
        try:
            self._fs.pipe_file(temporary, data)
            return self._place(temporary, path, replace=replace)
        finally:
            self._discard(temporary)

    def discard(self, name: str) -> None:
        """Remove a file that may not be there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _range(self, path: str, start: int, stop: int) -> bytes:
        """Read a range the way the file system can."""
        if self._protocols & _SEEKING or self.mounted:
            with self._fs.open(path, "rb") as file:
                file.seek(start)
                return bytes(file.read(stop - start))
        return bytes(self._fs.cat_file(path, start=start, end=stop))

    def _stream(self, path: str, start: int, stop: int) -> Generator[bytes, None, None]:
        """Read from a web server in one answer, whether it heeds the range or not."""
        wanted = {**self._fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if start:
            wanted["Range"] = f"bytes={start}-"
        with self._fs.open(path, "rb", block_size=0, size=stop, headers=wanted) as answer:
            position = start if answer.r.status == 206 else 0
            while position < stop and (piece := answer.read(min(PIECE_BYTES, stop - position))):
                skipped = max(0, start - position)
                position += len(piece)
                if len(piece) > skipped:
                    yield piece[skipped:]

    def _send(self, source: Path, target: str, progress: BytesDone | None) -> None:
        """Copy a file to the remote; on a mounted file system down to the disk."""
        size = source.stat().st_size
        if not self.mounted:
            self._fs.put_file(str(source), target, callback=_Bytes(size, progress))
            return
        with source.open("rb") as reader, Path(target).open("xb") as writer:
            while piece := reader.read(PIECE_BYTES):
                writer.write(piece)
                if progress is not None:
                    progress(writer.tell(), size)
            writer.flush()
            os.fsync(writer.fileno())

    def _create_object(self, path: str, data: bytes, *, replace: bool) -> bool:
        """Create an object; where the store can, only if it is absent."""
        try:
            if replace:
                self._fs.pipe_file(path, data)
            else:
                self._fs.pipe_file(path, data, mode="create")
        except (TypeError, NotImplementedError):
            self._fs.pipe_file(path, data)
        except Exception:  # every store has an error of its own for "it is there already"
            self._fs.invalidate_cache()
            if not replace and self._fs.exists(path):
                return False
            raise
        return True

    def _place(self, temporary: str, path: str, *, replace: bool) -> bool:
        """Give a complete file its name, unless somebody was faster."""
        if self.mounted:
            if replace:
                Path(temporary).replace(path)
                placed = True
            else:
                placed = place_if_absent(Path(temporary), Path(path))
            sync_folder(Path(path).parent)
            return placed
        if not replace and self._fs.exists(path):
            return False
        self._fs.mv(temporary, path)
        return True

    def _make_folder(self, path: str) -> None:
        """Make the folder of a file."""
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)

    def _sweep(self, folder: str) -> None:
        """Remove what killed pushes left in a folder."""
        with contextlib.suppress(Exception):  # a courtesy to the disk: nothing depends on it
            for info in self._fs.ls(folder, detail=True):
                if (
                    str(info["name"]).endswith(".part")
                    and time.time() - seconds_of(info) > _ABANDONED_SECONDS
                ):
                    self._discard(info["name"])

    def _discard(self, path: str) -> None:
        """Remove a file that may not be there."""
        with contextlib.suppress(Exception):
            self._fs.rm_file(path)

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
