"""SHA-256 of files, computed once and remembered by path, size, modification time and inode."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cache.atomic import make_folder
from cache.errors import CacheWriteError, InputChangedError, InvalidInputError
from cache.inputs import require_file
from cache.memory import Memory

CLOCK_RESOLUTION_SECONDS = 2.0
"""A file touched this recently may change again without its time stamp changing (FAT: 2 s)."""
_CHUNK_BYTES = 1 << 20
_QUESTIONS = 500
"""Files asked for at a time; sqlite takes 999 values at least."""
_TABLE = """create table if not exists digests (
    path blob primary key, size integer, mtime_ns integer, inode integer, sha256 text) without rowid"""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, note)."""


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, 64 hex digits.

    Raises
    ------
    InvalidInputError
        Not a file, or not readable.
    InputChangedError
        It changed meanwhile.
    """
    digest, before, after = _hash(path)
    if _stamp(before) != _stamp(after):
        raise InputChangedError(f"{path}: changed while it was being read: leave it alone and run again")
    return digest


class FileDigests:
    """Remembers the SHA-256 of files between runs; several processes may share one memory.

    Parameters
    ----------
    path : Path
        The sqlite file of the memory, made with its folder where it is absent. A memory that is
        damaged or cannot be written costs time, never correctness: files are hashed again.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jpg").write_bytes(b"abc")
    >>> FileDigests(folder / "digests.sqlite").digest(folder / "a.jpg")[:8]
    'ba7816bf'
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._memory = Memory(self.path, _TABLE)

    def digest(self, path: Path | str, *, rehash: bool = False) -> str:
        """Return the SHA-256 of one file; see `digest_many`."""
        return self.digest_many([path], rehash=rehash)[0]

    def digest_many(
        self,
        paths: Iterable[Path | str],
        progress: Progress | None = None,
        rehash: bool = False,
        threads: int | None = None,
    ) -> list[str]:
        """Return the SHA-256 of every file, in the order asked for.

        Parameters
        ----------
        paths : iterable of Path
            Links are followed: the bytes count, not the name.
        progress : callable, optional
            Gets (done, total, path) while files are hashed.
        rehash : bool
            Distrust what is remembered.
        threads : int, optional
            Hashing threads; hashlib leaves the interpreter's lock while it works.

        Raises
        ------
        InvalidInputError
            A file that is missing, unreadable or no regular file.
        InputChangedError
            A file that changed while it was being read.
        """
        files = [Path(path).absolute() for path in paths]
        with contextlib.suppress(CacheWriteError):  # a folder that cannot be made remembers nothing
            make_folder(self.path.parent)
        known = {} if rehash else self._recall(files)
        fresh: list[tuple[Path, str, os.stat_result]] = []
        wanted = [path for path in dict.fromkeys(files) if path not in known]
        with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
            for path, (digest, before, after) in zip(wanted, pool.map(_hash, wanted), strict=True):
                if _stamp(before) != _stamp(after):
                    raise InputChangedError(f"{path}: changed while it was being read: run again")
                known[path] = digest
                fresh.append((path, digest, after))
                if progress is not None:
                    progress(len(known), len(set(files)), str(path))
        self._remember(fresh)
        return [known[path] for path in files]

    def _recall(self, files: Sequence[Path]) -> dict[Path, str]:
        """Return the digests of those files whose stamp is still the remembered one."""
        names = [os.fsencode(path) for path in dict.fromkeys(files)]
        remembered: dict[bytes, tuple[object, ...]] = {}
        for first in range(0, len(names), _QUESTIONS):
            some = names[first : first + _QUESTIONS]
            marks = ",".join("?" * len(some))
            rows = self._memory.recall(f"select * from digests where path in ({marks})", some)  # noqa: S608
            remembered.update(
                (path, (size, mtime, inode, digest)) for path, size, mtime, inode, digest in rows
            )
        known: dict[Path, str] = {}
        for path in dict.fromkeys(files):
            *stamp, digest = remembered.get(os.fsencode(path), (None,))
            if isinstance(digest, str) and (*stamp,) == _stamp(require_file(path)):
                known[path] = digest
        return known

    def _remember(self, fresh: Sequence[tuple[Path, str, os.stat_result]]) -> None:
        """Keep digests of files that have rested long enough for their time stamp to mean something."""
        latest = time.time_ns() - int(CLOCK_RESOLUTION_SECONDS * 1e9)
        rows = [
            (os.fsencode(path), *_stamp(status), digest)
            for path, digest, status in fresh
            if status.st_mtime_ns < latest
        ]
        if rows:
            self._memory.remember("insert or replace into digests values (?, ?, ?, ?, ?)", rows)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What tells one state of a file from another."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def _hash(path: Path) -> tuple[str, os.stat_result, os.stat_result]:
    """Return a file's digest with its status before and after."""
    require_file(path)
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest(), before, os.fstat(file.fileno())
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror or error}") from error
