"""One lock a key, so that two processes do not compute the same thing; results are right without it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cache.atomic import make_folder, write_errors, write_file
from cache.errors import CacheWriteError, LockTimeoutError
from cache.keys import canonical_json
from cache.system import host_name, user_name

POLL_SECONDS = 0.25
TELL_SECONDS = 30.0

Notify = Callable[[str], None]
"""Called with one line for a person."""


def silent(_line: str) -> None:
    """Tell nobody."""


class KeyLock:
    """The exclusive right to write one key, with a note that says who has it.

    The operating system gives the lock back when its holder dies, however it dies.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.digest = digest
        self._note = folder / f"{digest}.holder"
        self._folder = folder
        self._lock = FileLock(folder / f"{digest}.lock", mode=0o664)
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
        make_folder(self._folder)
        self._acquire(notify, timeout)
        try:
            self._since = time.time()
            self.note("starting")
            yield
            with contextlib.suppress(OSError):
                self._note.unlink()
        finally:
            self._lock.release()

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
            write_file(self._note, text)

    def holder(self) -> str:
        """Describe the holder in a few words, as its note has it."""
        try:
            note = json.loads(self._note.read_bytes())
            return (
                f"process {note['pid']} of {note['user']} on {note['host']} "
                f"since {note['since']} ({note['progress']})"
            )
        except (OSError, ValueError, KeyError, TypeError):
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
        with write_errors(self._folder, "locking"):
            try:
                self._lock.acquire(timeout=seconds, poll_interval=POLL_SECONDS / 5)
            except Timeout:
                return False
        return True
