"""Who may do what inside a store: what its root folder grants, whatever the umask of those who write into it.

A folder in a store gets the group's and the others' permissions of the root and its setgid bit, a file
the same without the right to execute, a published entry no right to write at all. What the root's group
is granted goes to the root's group alone: a file that cannot be given to that group grants its own group
no more than everybody. The sticky bit is not passed on, because users of one store go on with each
other's work. Where the root has a default access list, the system grants by that, umask or not, and only
the right to write is taken from what is published. Only an owner is asked to change anything; a file
system that has no permissions is left so. A folder that nobody may write in stays so (`cache.atomic.make_folder`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from cache.system import READ_FLAGS, has_default_list, is_own

_REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def grant(subject: Path | int, root: Path, *, writable: bool = True) -> None:
    """Give a file or folder of a store the permissions that the store's root folder grants.

    Somebody else's is left as it is, so is a symbolic link, and one on a file system that refuses.

    Parameters
    ----------
    subject : Path or int
        The path, or an open descriptor.
    root : Path
        The store's root folder.
    writable : bool
        False for a published entry: nobody may write it.

    Raises
    ------
    OSError
        It is not there, or the device failed.
    """
    if isinstance(subject, int):
        _grant_open(subject, root, writable)
        return
    status = subject.lstat()
    if stat.S_ISLNK(status.st_mode) or not is_own(status):
        return
    descriptor = os.open(subject, READ_FLAGS)
    try:
        _grant_open(descriptor, root, writable)
    finally:
        os.close(descriptor)


def granted_mode(root: os.stat_result, subject: os.stat_result, *, writable: bool = True) -> int:
    """Return the mode of a file or folder in a store whose root folder has this status.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> root = Path(tempfile.mkdtemp())
    >>> root.chmod(0o2775)
    >>> (root / "file").touch()
    >>> oct(granted_mode(root.stat(), (root / "file").stat(), writable=False))
    '0o444'
    """
    shared = root.st_mode & 0o077
    if subject.st_gid != root.st_gid:
        shared = (shared & 0o007) * 0o011
    if stat.S_ISDIR(subject.st_mode):
        return 0o700 | shared | (root.st_mode & stat.S_ISGID)
    mode = 0o600 | (shared & 0o066)
    return mode if writable else mode & ~0o222


def _grant_open(descriptor: int, root: Path, writable: bool) -> None:
    """Give the file or folder behind a descriptor its group and mode."""
    above, status = root.stat(), os.fstat(descriptor)
    if not is_own(status):
        return
    if has_default_list(root):
        if not writable:
            _change_mode(descriptor, status, stat.S_IMODE(status.st_mode) & ~0o222)
        return
    if status.st_gid != above.st_gid and hasattr(os, "fchown"):
        with contextlib.suppress(OSError):  # whoever is no member of the group cannot give to it
            os.fchown(descriptor, -1, above.st_gid)
            status = os.fstat(descriptor)
    _change_mode(descriptor, status, granted_mode(above, status, writable=writable))


def _change_mode(descriptor: int, status: os.stat_result, mode: int) -> None:
    """Change a mode unless it is right, or the file system will not have it."""
    if stat.S_IMODE(status.st_mode) == mode or not hasattr(os, "fchmod"):
        return
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
