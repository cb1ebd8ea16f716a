"""What reading an entry found out, said in typed errors; a damaged file is set aside, and nothing else is touched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cache.atomic import set_aside
from cache.errors import CacheReadError, DamagedEntryError, KeyMissingError, NewerFormatError
from cache.layout import DefectError, NewerDefectError


@contextlib.contextmanager
def refusals(path: Path, root: Path) -> Iterator[None]:
    """Turn what reading an entry of a store found out into typed errors, and set a damaged file aside.

    Parameters
    ----------
    path : Path
        The entry.
    root : Path
        The store's.

    Raises
    ------
    KeyMissingError
        Nothing there.
    DamagedEntryError
        It is no entry that can be trusted; ``moved_to`` is None where it could not be moved.
    NewerFormatError
        A later version of the tool wrote it.
    CacheReadError
        The system does not let it be read.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise KeyMissingError(f"{path}: no such entry: extract it, or pull it") from None
    except NewerDefectError as error:
        raise NewerFormatError(f"{path}: {error}: update penultimate, then run again") from error
    except DefectError as error:
        raise _damaged(path, str(error), root / "quarantine") from error
    except CacheReadError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> CacheReadError:
    """Return what is to be said where the system does not let something be read."""
    reason = f"cannot be read: {error.strerror or error}: mend permissions or the disk, then run again"
    return CacheReadError(error.errno, reason, str(path))


def _damaged(path: Path, reason: str, quarantine: Path) -> DamagedEntryError:
    """Move a file that cannot be trusted out of the way, and return what is to be said of it."""
    try:
        return DamagedEntryError(path, reason, set_aside(path, quarantine))
    except OSError as error:
        why = f"it cannot be moved to {quarantine} ({os.strerror(error.errno or 0)})"
        return DamagedEntryError(path, reason, advice=f"{why}: see to that, then run again")
