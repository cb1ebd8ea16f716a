"""Files that people name: there, and regular; else said what they are instead, before anything waits for them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cache.errors import InvalidInputError
from cache.system import kind_of


def require_file(path: Path, advice: str = "name a file") -> os.stat_result:
    """Return the status of a regular file; links are followed.

    Parameters
    ----------
    path : Path
        As somebody wrote it.
    advice : str
        What to do where it is no file.

    Raises
    ------
    InvalidInputError
        Nothing is there, it cannot be looked at, or it is a folder, a FIFO, a device, a socket.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        what = "a symbolic link to nothing" if path.is_symlink() else "no such file"
        raise InvalidInputError(f"{path}: {what}: {advice}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{path}: cannot be read: {reason}: {advice}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(f"{path}: is no regular file but {kind_of(status.st_mode)}: {advice}")
    return status
