"""Small files, folders and moves that are either there whole or not at all.

What lies in a store has the permissions of its root folder, see `cache.modes`; what does not, those of
the user's umask.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from cache.errors import CacheWriteError
from cache.modes import grant
from cache.system import (
    WRITE_FLAGS,
    advice,
    file_opener,
    is_own,
    nobody_writes,
    place_if_absent,
    rename_if_absent,
    sync_folder,
)

_CHUNK_BYTES = 1 << 22


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
            f"{doing} failed: {reason}: {advice(error.errno)}",
            str(path),
        ) from error


def make_folder(folder: Path, root: Path | None = None) -> Path:
    """Create a folder with its parents.

    Parameters
    ----------
    folder : Path
        It may exist.
    root : Path, optional
        The store that the folder lies in. The root itself is made under the user's umask, or, in a folder
        whose setgid bit says that it is a group's, with that folder's permissions; everything below it
        with the root's permissions.

    Raises
    ------
    CacheWriteError
        It cannot be made.
    """
    with write_errors(folder, "making the folder"):
        top = folder if root is None else root
        if not top.is_dir():
            top.mkdir(parents=True, exist_ok=True)
            if top.parent.stat().st_mode & stat.S_ISGID:
                grant(top, top.parent)
        level = top
        for name in folder.relative_to(top).parts:
            level = level / name
            _make_level(level, top)
    return folder


def make_file(path: Path, root: Path) -> Path:
    """Create an empty file of a store with the root's permissions, unless there is one.

    Raises
    ------
    CacheWriteError
        It cannot be made.
    """
    if os.path.lexists(path):
        return path
    temporary = temporary_name(path)
    with write_errors(path, "making the file"):
        try:
            descriptor = os.open(temporary, WRITE_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                grant(descriptor, root)
            finally:
                os.close(descriptor)
            place_if_absent(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


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
    beginning = os.fsdecode(os.fsencode(target.name)[:80])
    return target.with_name(f".{beginning}.{os.getpid()}.{secrets.token_hex(4)}.part")


def write_file(target: Path, data: bytes, root: Path | None = None) -> None:
    """Put a file in place, synced and whole, replacing what was there.

    Parameters
    ----------
    target : Path
        In a folder that exists.
    data : bytes
        All of it.
    root : Path, optional
        The store that the file lies in, whose permissions it gets.

    Raises
    ------
    CacheWriteError
        Disk full, no permission; the old file is untouched.
    """
    with write_errors(target, "writing"), _written(target, data, root) as temporary:
        temporary.replace(target)
        sync_folder(target.parent)


def create_file(target: Path, data: bytes, root: Path | None = None) -> bool:
    """Put a file in place as `write_file` does, where there is none; False where there is one."""
    if os.path.lexists(target):
        return False
    with write_errors(target, "writing"), _written(target, data, root) as temporary:
        placed = place_if_absent(temporary, target)
        sync_folder(target.parent)
    return placed


@contextlib.contextmanager
def _written(target: Path, data: bytes, root: Path | None) -> Iterator[Path]:
    """Write and sync a file beside the target; what is left of it afterwards is removed."""
    temporary = temporary_name(target)
    try:
        descriptor = os.open(temporary, WRITE_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(descriptor, data, 0)
            if root is not None:
                grant(descriptor, root)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sealed(path: Path, root: Path) -> Path:
    """Return a finished file of a store that nobody may write any more: this one, or a copy of it.

    Only an owner can take that right away, so somebody else's file is copied, and removed.

    Raises
    ------
    OSError
        The disk refused.
    """
    if not is_own(path.lstat()):
        own = temporary_name(path)
        try:
            with open(path, "rb", opener=file_opener()) as reader, own.open("xb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
                writer.flush()
                os.fsync(writer.fileno())
            grant(own, root, writable=False)
            path.unlink()
        except BaseException:
            own.unlink(missing_ok=True)
            raise
        return own
    grant(path, root, writable=False)
    return path


def forget(path: Path) -> None:
    """Remove a file that nobody needs; one that the system does not let go stays until `cache.sweep` finds it."""
    with contextlib.suppress(OSError):
        path.unlink()


def set_aside(path: Path, folder: Path) -> Path:
    """Move a file into a folder of its store under a name of its own, and return that.

    Raises
    ------
    OSError
        The folder cannot be made, or the file not be moved.
    """
    target = make_folder(folder, folder.parent) / f"{path.name}.{secrets.token_hex(4)}"
    path.rename(target)
    return target


def _refuse_closed(folder: Path) -> None:
    """Refuse a folder that somebody has made read-only: to take that back would be their own business."""
    if nobody_writes(folder.stat()):
        raise PermissionError(errno.EACCES, "it was made read-only", str(folder))


def _make_level(folder: Path, root: Path) -> None:
    """Make one folder of a store; it is never seen with other permissions than the root's."""
    if folder.is_dir():
        _refuse_closed(folder)
        grant(folder, root)
        return
    temporary = temporary_name(folder)
    temporary.mkdir()
    try:
        grant(temporary, root)
        made = rename_if_absent(temporary, folder)
    except OSError:
        temporary.rmdir()
        raise
    if not made:
        temporary.rmdir()
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
