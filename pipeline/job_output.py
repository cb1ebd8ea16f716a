"""What a job prints while it runs, kept in a file so that the last lines of one that died can be read.

The file is there while the job is under way and tells where (`penultimate status` reads that); it goes with the
job. Only a process that dies leaves it behind.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cache.system import host_name

TAIL_LINES = 40
_TAIL_BYTES = 16384
SUFFIX = ".running"


class WorkerDiedError(RuntimeError):
    """The process that did a job died of it.

    Parameters
    ----------
    message : str
    tail : str
        The last lines that it printed; may be empty.
    """

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message, tail)
        self.message, self.tail = message, tail

    def __str__(self) -> str:
        return self.message


@contextlib.contextmanager
def kept_output(path: Path | None) -> Iterator[None]:
    """Send what this process prints, and the stack of a crash, to a file while the block runs.

    Parameters
    ----------
    path : Path or None
        None = leave everything as it is. A file that cannot be written is no reason to fail the job.
    """
    file = None if path is None else _opened(path)
    if path is None or file is None:
        yield
        return
    before = [os.dup(1), os.dup(2)]
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        faulthandler.enable(file, all_threads=False)
        yield
    finally:
        faulthandler.disable()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, copy in enumerate(before, start=1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(file)
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def marked(path: Path | None) -> Iterator[None]:
    """Let a file tell that a job is under way while the block runs, where its output is kept by others."""
    file = None if path is None else _opened(path)
    if file is not None:
        os.close(file)
    try:
        yield
    finally:
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()


def under_way(folder: Path) -> dict[str, str]:
    """Return which jobs run in processes of their own, by the stem of their file, and where and since when.

    What a machine that went down was doing stays among them until it is run again.
    """
    found = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            found[path.name.removesuffix(SUFFIX)] = file.readline().decode(errors="replace").strip()
    return found


def tail(path: Path | None) -> str:
    """Return the last lines of what a job printed, and remove the file; nothing where there is none."""
    if path is None:
        return ""
    found = end_of(path)
    with contextlib.suppress(OSError):
        path.unlink()
    return found


def end_of(path: Path) -> str:
    """Return the last lines of a file; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])


def _opened(path: Path) -> int | None:
    """Open the file and write its head: where the job runs and since when."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.write(file, f"on {host_name()}, process {os.getpid()}, since {now}\n".encode())
    except OSError:
        return None
    return file
