"""Loaded at the start of a process under test: one of its file operations fails, or is its last.

FAULT_ROOT: operations below this folder count. FAULT_COUNTER: a file that counts them, over parent and
child. FAULT_AT: number of the operation. FAULT_KIND: "exit", "short", or the name of an errno.
"""

import errno
import os
from typing import Any

_ROOT = os.environ.get("FAULT_ROOT", "")
_AT = int(os.environ.get("FAULT_AT", "0"))
_KIND = os.environ.get("FAULT_KIND", "")
_COUNTER = os.environ.get("FAULT_COUNTER", "")
_ours: set[int] = set()
_real = {name: getattr(os, name) for name in ("open", "write", "close")}


def _counts(subject: Any) -> bool:
    """Whether an operation touches the folder under test."""
    return subject in _ours if isinstance(subject, int) else os.fspath(subject).startswith(_ROOT)


def _is_due() -> bool:
    """Count an operation, and say whether it is the one."""
    descriptor = _real["open"](_COUNTER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    _real["write"](descriptor, b".")
    number = os.fstat(descriptor).st_size
    _real["close"](descriptor)
    return number == _AT


def _wrap(name: str) -> None:
    """Put the fault in front of one function."""
    real = getattr(os, name)

    def operation(subject: Any, *arguments: Any, **options: Any) -> Any:
        if not _counts(subject) or not _is_due():
            result = real(subject, *arguments, **options)
        elif _KIND == "exit":
            os._exit(9)
        elif _KIND == "short":
            if name != "write":
                return real(subject, *arguments, **options)
            return real(subject, bytes(arguments[0])[: max(1, len(arguments[0]) // 2)])
        else:
            number = getattr(errno, _KIND)
            raise OSError(number, os.strerror(number))
        if name == "open" and _counts(subject):
            _ours.add(result)
        return result

    setattr(os, name, operation)


if _ROOT:
    for _name in "open write fsync ftruncate link rename replace unlink mkdir chmod rmdir".split():
        _wrap(_name)
