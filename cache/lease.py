"""A lock for file systems without locks: a right that its holder renews, and that ends when it does not.

::

    FOLDER/00000007    who holds the lease, JSON; its time stamp moves while the holder is alive

A lease is had by creating the file with the next number, which only one process can. One follows a file
that says "released", one whose holder on this machine is dead, and one whose time stamp has not moved
for `LEASE_SECONDS` by the clock of the one who waits: clocks of two machines are never compared. The
file with the highest number is never removed, so a number is not given twice; whoever finds a higher one
than its own, having slept between looking and creating, steps back.

A holder that was suspended for longer than that has lost its lease and may find somebody else at work.
That costs time and nothing else: results are right without any lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from cache.atomic import make_folder, write_all, write_file
from cache.errors import CacheWriteError
from cache.keys import canonical_json
from cache.modes import grant
from cache.system import READ_FLAGS, WRITE_FLAGS, machine, process_is_alive

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0

_NUMBER = re.compile(r"[0-9]{8}\Z")
_LARGEST_BYTES = 4096


class Lease:
    """The exclusive right to something for as long as it is renewed, by a thread of the holder's.

    Parameters
    ----------
    folder : Path
        Of this lease alone; made where it is absent.
    root : Path
        The store that the folder lies in.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._path: Path | None = None
        self._descriptor = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: tuple[tuple[int, ...], float] | None = None
        self.lost = False
        """Whether somebody else took the lease over."""

    @property
    def held(self) -> bool:
        """Whether it was acquired and not released; it may be lost all the same."""
        return self._path is not None

    def acquire(self) -> bool:
        """Take the lease if it can be had now; to be asked again and again by those who wait.

        Raises
        ------
        OSError
            No permission, disk full.
        """
        make_folder(self._folder, self._root)
        last = self._highest()
        if last and not self._is_over(self._folder / f"{last:08d}"):
            return False
        path = self._folder / f"{last + 1:08d}"
        try:
            descriptor = os.open(path, WRITE_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        if not self._claim(descriptor, last + 1):
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return False
        self._path, self._descriptor, self.lost = path, descriptor, False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Give the lease back; where that cannot be written, others wait until it ends by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self._path is not None and not self._is_superseded(self._path):
                with contextlib.suppress(CacheWriteError):
                    write_file(self._path, canonical_json({"released": True}), self._root)
        finally:
            os.close(self._descriptor)
            self._path, self._thread, self._seen = None, None, None

    def _claim(self, descriptor: int, number: int) -> bool:
        """Write who holds the lease; False where somebody else is ahead."""
        try:
            grant(descriptor, self._root)
            write_all(descriptor, canonical_json({"machine": machine(), "pid": os.getpid()}), 0)
            os.fsync(descriptor)
            numbers = self._numbers()
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                (self._folder / f"{number:08d}").unlink()
            raise
        if max(numbers, default=0) > number:
            return False
        for old in numbers - {number}:
            with contextlib.suppress(OSError):
                (self._folder / f"{old:08d}").unlink()
        return True

    def _is_over(self, path: Path) -> bool:
        """Whether nobody holds the lease that a file describes."""
        try:
            status, holder = _look(path)
        except FileNotFoundError:
            return False
        if holder.get("released") is True:
            return True
        pid = holder.get("pid")
        if (
            isinstance(pid, int)
            and pid > 0
            and holder.get("machine") == machine()
            and not process_is_alive(pid)
        ):
            return True
        state = (int(path.name), status.st_ino, status.st_mtime_ns, status.st_size)
        now = time.monotonic()
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, now)
        return now - self._seen[1] >= LEASE_SECONDS

    def _renew(self) -> None:
        """Move the time stamp for as long as the lease is held."""
        path, descriptor, stop = self._path, self._descriptor, self._stop
        assert path is not None
        while not stop.wait(RENEW_SECONDS):
            if self._is_superseded(path):
                self.lost = True
                return
            with contextlib.suppress(OSError):  # a mount that answers again in time has cost nothing
                os.utime(descriptor if os.utime in os.supports_fd else path)

    def _is_superseded(self, path: Path) -> bool:
        """Whether somebody else has taken the lease over."""
        try:
            return self._highest() > int(path.name)
        except OSError:
            return False

    def _highest(self) -> int:
        """Return the number of the newest lease, 0 where there was none."""
        return max(self._numbers(), default=0)

    def _numbers(self) -> set[int]:
        """Return the numbers of all leases that lie in the folder."""
        return {int(path.name) for path in self._folder.iterdir() if _NUMBER.match(path.name)}


def _look(path: Path) -> tuple[os.stat_result, dict[str, Any]]:
    """Return the state of a lease and what it says of its holder, nothing where that cannot be read."""
    try:
        descriptor = os.open(path, READ_FLAGS)
    except PermissionError:  # its holder has not granted it to us yet
        return path.lstat(), {}
    try:
        return os.fstat(descriptor), _parsed(os.read(descriptor, _LARGEST_BYTES))
    finally:
        os.close(descriptor)


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return what a lease says of its holder; nothing where it is not whole."""
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
