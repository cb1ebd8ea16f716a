"""Loaded at the start of a process under test: a file system that lacks something.

FLOCK: the name of an errno with which every flock fails, or "blind": each succeeds and locks nothing, as
on a mount that locks for its own machine alone. FCHMOD: the name of an errno with which every chmod fails.
"""

import errno
import os
from typing import Any


def _refuse(name: str) -> Any:
    """Return a call that fails in this way."""
    number = getattr(errno, name)

    def refused(*_arguments: Any, **_options: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refused


if _name := os.environ.get("FLOCK"):
    import fcntl

    fcntl.flock = (lambda _descriptor, _operation: None) if _name == "blind" else _refuse(_name)
if _name := os.environ.get("FCHMOD"):
    os.fchmod = os.chmod = _refuse(_name)
