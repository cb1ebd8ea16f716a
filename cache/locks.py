"""One lock a key, so that two processes do not compute the same thing; results are right without it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cache.atomic import make_file, make_folder, write_errors, write_file
from cache.errors import CacheWriteError, LockTimeoutError
from cache.keys import canonical_json
from cache.lease import LEASE_SECONDS, RENEW_SECONDS, Lease
from cache.system import READ_FLAGS, host_name, user_name

POLL_SECONDS = 0.25
TELL_SECONDS = 30.0
_LARGEST_NOTE = 4096

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_told: set[Path] = set()
"""Folders of which somebody was told that they have no locks."""

Notify = Callable[[str], None]
"""Called with one line for a person."""


def silent(_line: str) -> None:
    """Tell nobody."""


def _small_file(path: Path) -> bytes:
    """Read the beginning of a regular file; a FIFO or a link to a device would not end."""
    descriptor = os.open(path, READ_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return os.read(descriptor, _LARGEST_NOTE)
    finally:
        os.close(descriptor)


class KeyLock:
    """The exclusive right to write one key, with a note that says who has it.

    The operating system gives the lock back when its holder dies, however it dies. Where the file system
    has no locks, a `Lease` stands in.

    Parameters
    ----------
    folder : Path
        Of all locks; it lies in the root folder of the store.
    digest : str
        Of the key, 64 hex digits.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.digest = digest
        self._note = folder / f"{digest}.holder"
        self._folder = folder
        self._root = folder.parent
        self._path = folder / f"{digest}.lock"
        # A soft lock, which filelock would fall back to, is not broken where names cannot be exchanged.
        self._lock = FileLock(self._path, fallback_to_soft=False)
        self._lease: Lease | None = None
        self._notify: Notify = silent
        self._since = 0.0

    @contextlib.contextmanager
    def held(self, notify: Notify, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock; meanwhile others are told by whom.

        Raises
        ------
        LockTimeoutError
            Somebody else held it for longer than ``timeout`` seconds.
        CacheWriteError
            The lock file cannot be made.
        """
        self._notify = notify
        make_folder(self._folder, self._root)
        self._acquire(notify, timeout)
        try:
            self._since = time.time()
            self.note("starting")
            yield
            with contextlib.suppress(OSError):
                self._note.unlink()
        finally:
            self._release()

    def note(self, progress: str) -> None:
        """Say how far the holder is; a courtesy, so a note that cannot be written stops nobody."""
        text = canonical_json(
            {
                "host": host_name(),
                "pid": os.getpid(),
                "progress": progress,
                "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._since)),
                "user": user_name(),
            }
        )
        with contextlib.suppress(CacheWriteError):
            write_file(self._note, text, self._root)
        if self._lease is not None and self._lease.lost:
            self._lease.lost = False
            self._notify(
                f"key {self.digest[:12]}...: this process was held up for more than {LEASE_SECONDS:g} s and "
                "somebody else began the same work: both go on, the first result stays"
            )

    def holder(self) -> str:
        """Describe the holder in a few words, as its note has it."""
        try:
            note = json.loads(_small_file(self._note))
            return (
                f"process {note['pid']} of {note['user']} on {note['host']} "
                f"since {note['since']} ({note['progress']})"
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "a process that left no note"

    def _acquire(self, notify: Notify, timeout: float | None) -> None:
        """Wait for the lock, telling now and then who holds it."""
        start = time.monotonic()
        told = -TELL_SECONDS
        while True:
            if self._try(0.0 if told < 0 else POLL_SECONDS):
                return
            waited = time.monotonic() - start
            if timeout is not None and waited >= timeout:
                raise LockTimeoutError(
                    f"key {self.digest}: held by {self.holder()}, waited {timeout:g} s: wait longer or end it"
                )
            if waited - told >= TELL_SECONDS:
                told = waited
                notify(f"waiting for key {self.digest[:12]}...: held by {self.holder()}")

    def _try(self, seconds: float) -> bool:
        """Try to get the lock for a moment."""
        with write_errors(self._path, "locking"):
            if self._lease is not None:
                return self._try_lease(self._lease, seconds)
            make_file(self._path, self._root)
            try:
                self._lock.acquire(timeout=seconds, poll_interval=POLL_SECONDS / 5)
            except Timeout:
                return False
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self._lease = Lease(self._folder / f"{self.digest}.lease", self._root)
                self._tell_of_lease(error)
                return self._try_lease(self._lease, seconds)
        return True

    def _try_lease(self, lease: Lease, seconds: float) -> bool:
        """Ask for the lease, and again after a moment."""
        if lease.acquire():
            return True
        time.sleep(seconds)
        return seconds > 0 and lease.acquire()

    def _release(self) -> None:
        """Give the right to others."""
        if self._lease is not None:
            self._lease.release()
        else:
            self._lock.release()

    def _tell_of_lease(self, error: OSError) -> None:
        """Say once that there are no locks here, and what that means."""
        if self._notify is silent or self._folder in _told:
            return
        _told.add(self._folder)
        self._notify(
            f"{self._folder}: no file locks here ({error.strerror}): a lease stands in, renewed every "
            f"{RENEW_SECONDS:g} s; work that another machine broke off is waited for {LEASE_SECONDS:g} s"
        )
