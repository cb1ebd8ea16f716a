"""Holds an entry's index against what libhdf5 sees; ``python -m cache.deep PATH`` in a limited child.

Answers with one line of JSON: ``{"contradictions": [...]}``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cache.children import answer_parent, run_child
from cache.entry import open_entry
from cache.system import limit_this_process

_BYTES_A_SECOND = 20e6
_LEAST_SECONDS = 30
_MEMORY_BYTES = 2 << 30


def deep_contradictions(path: Path) -> tuple[str, ...]:
    """Return every point in which libhdf5 sees something else in an entry than its index says.

    The work happens in a child with bounded time and memory that may write no file; a child that
    crashes, hangs or is ended by its limits is a contradiction too.

    Parameters
    ----------
    path : Path
        An entry whose index holds.
    """
    seconds = _seconds_for(path)
    answer = run_child("cache.deep", [str(path.absolute())], timeout=2 * seconds)
    if answer.failure:
        return (f"HDF5 cannot be read: {answer.failure}",)
    return tuple(str(line) for line in answer.values["contradictions"])


def _seconds_for(path: Path) -> int:
    """Processor time that an honest file of this size needs, and some more."""
    return _LEAST_SECONDS + int(path.stat().st_size / _BYTES_A_SECOND)


def main(arguments: list[str]) -> int:
    """Look, and answer the parent in one line."""
    path = Path(arguments[0])
    limit_this_process(_seconds_for(path), _MEMORY_BYTES)
    from cache.hdf5 import contradictions

    try:
        with open_entry(path) as opened:
            found = list(contradictions(path, opened.index.arrays))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        found = [f"HDF5 cannot be read: {type(error).__name__}: {ascii(str(error))[:200]}"]
    answer_parent({"contradictions": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
