"""Holds an entry's index against what libhdf5 sees; ``python -m cache.deep PATH`` in a limited child.

Answers with one line of JSON: ``{"contradictions": [...]}``, or ``{"unable": ...}`` where it could not look.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from cache.children import answer_parent, run_child
from cache.entry import open_entry
from cache.errors import CacheReadError
from cache.layout import DefectError, memory_bound
from cache.system import limit_this_process

_BYTES_A_SECOND = 20e6
_LEAST_SECONDS = 30
_MEMORY_BYTES = 2 << 30
"""Besides what the index takes."""
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL"}
_NOT_THE_FILE = {
    errno.EIO, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EMFILE, errno.ENFILE,
    errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR,
}  # fmt: skip
"""Errors that say something of this machine or its disk, not of what libhdf5 found in the file."""


def deep_contradictions(path: Path) -> tuple[str, ...]:
    """Return every point in which libhdf5 sees something else in an entry than its index says.

    The work happens in a child with bounded time and memory that may write no file; a file at which
    libhdf5 crashes contradicts its index too.

    Parameters
    ----------
    path : Path
        An entry whose index holds.

    Raises
    ------
    CacheReadError
        The child could not look: too little time or memory, a device error. Nothing is known of the entry.
    """
    seconds = _seconds_for(path)
    answer = run_child("cache.deep", [str(path.absolute())], timeout=2 * seconds)
    if answer.ended_by in _CRASHES:
        return (f"HDF5 cannot be read: {answer.failure}",)
    if reason := answer.failure or answer.values.get("unable"):
        raise CacheReadError(
            answer.values.get("errno") or errno.EIO,
            f"its HDF5 side could not be looked at: {reason}: free memory or see to the disk, then run again",
            str(path),
        )
    return tuple(str(line) for line in answer.values["contradictions"])


def _seconds_for(path: Path) -> int:
    """Processor time that an honest file of this size needs, and some more."""
    return _LEAST_SECONDS + int(path.stat().st_size / _BYTES_A_SECOND)


def main(arguments: list[str]) -> int:
    """Look, and answer the parent in one line."""
    path = Path(arguments[0])
    try:
        answer_parent({"contradictions": _look(path)})
    except MemoryError:
        answer_parent({"unable": "too little memory", "errno": errno.ENOMEM})
    except DefectError as error:
        answer_parent({"unable": f"it changed meanwhile: {error}"})
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason, number = f"{type(error).__name__}: {ascii(str(error))[:200]}", getattr(error, "errno", None)
        if number in _NOT_THE_FILE:
            answer_parent({"unable": reason, "errno": number})
        else:
            answer_parent({"contradictions": [f"HDF5 cannot be read: {reason}"]})
    return 0


def _look(path: Path) -> list[str]:
    """Compare; the index alone was read by the parent before, without limits."""
    with open_entry(path) as opened:
        limit_this_process(_seconds_for(path), _MEMORY_BYTES + memory_bound(opened.block.index))
        from cache.hdf5 import contradictions

        return list(contradictions(path, opened.index.arrays))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
