"""Small files and moves that are either there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cache.errors import CacheWriteError
from cache.system import WRITE_FLAGS, sync_folder


@contextlib.contextmanager
def write_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an operating system's refusal into one typed line that names the file."""
    try:
        yield
    except CacheWriteError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise CacheWriteError(
            error.errno,
            f"{doing} failed: {reason}: free space or mend permissions, then run again",
            str(path),
        ) from error


def make_folder(folder: Path) -> Path:
    """Create a folder with its parents, under the user's umask.

    Raises
    ------
    CacheWriteError
        It cannot be made.
    """
    with write_errors(folder, "making the folder"):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write every byte at an offset, whatever the system accepts at a time; return where it ended."""
    view = memoryview(data).cast("B")
    os.lseek(descriptor, offset, os.SEEK_SET)
    while view:
        written = os.write(descriptor, view)
        view, offset = view[written:], offset + written
    return offset


def temporary_name(target: Path) -> Path:
    """Return a name beside the target that no other process or thread uses."""
    return target.with_name(f".{target.name[:80]}.{os.getpid()}.{secrets.token_hex(4)}.part")


def write_file(target: Path, data: bytes) -> None:
    """Put a file in place, synced and whole, replacing what was there.

    Raises
    ------
    CacheWriteError
        Disk full, no permission; the old file is untouched.
    """
    temporary = temporary_name(target)
    with write_errors(target, "writing"):
        try:
            descriptor = os.open(temporary, WRITE_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                write_all(descriptor, data, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(target)
            sync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def set_aside(path: Path, folder: Path) -> Path | None:
    """Move a file into a folder under a name of its own; None where that is not permitted."""
    target = folder / f"{path.name}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    except OSError:
        return None
    return target
