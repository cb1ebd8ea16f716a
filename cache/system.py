"""The one module that knows about platforms: opening, syncing, limits, who and where we are.

Linux is tested. Where a platform lacks a facility the function says so in its docstring and does the
most it can: correctness never rests on it, only durability after a power cut or the speed of a lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import getpass
import os
import platform
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_BLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)

READ_FLAGS = os.O_RDONLY | _NO_FOLLOW | _NO_BLOCK | _CLOSE_ON_EXEC | _BINARY
"""A symbolic link is refused and a FIFO does not block (Windows has neither flag)."""
WRITE_FLAGS = os.O_RDWR | _NO_FOLLOW | _NO_BLOCK | _CLOSE_ON_EXEC | _BINARY

_ONE_POSITION = threading.Lock()
_KINDS = {
    stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_NO_SUCH_FACILITY = {
    errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EINVAL
}  # fmt: skip
_HERE, _NO_REPLACE = -100, 1
"""AT_FDCWD and RENAME_NOREPLACE of Linux's renameat2."""


def sync_folder(folder: Path) -> None:
    """Make a rename within a folder survive a power cut; Windows syncs folders by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _CLOSE_ON_EXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, *_NO_SUCH_FACILITY}:  # some network mounts refuse it
            raise
    finally:
        os.close(descriptor)


def read_piece(descriptor: int, count: int, offset: int) -> bytes:
    """Read at an offset, from several threads at a time; Windows has one position, so there they take turns."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    with _ONE_POSITION:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


def place_if_absent(source: Path, target: Path) -> bool:
    """Move a file to a name that nobody has taken; False where somebody has.

    A hard link is create-if-absent in one step. Somebody else's file may not be linked, and some file
    systems have no hard links: there as `rename_if_absent`.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_SUCH_FACILITY:
            raise
        return rename_if_absent(source, target)
    source.unlink()
    return True


def rename_if_absent(source: Path, target: Path) -> bool:
    """Give a file or folder a name that nobody has taken; False where somebody has.

    One step on Linux, save on file systems without it (NFS). Elsewhere a test and a rename: two who do
    this at once may replace each other's equal content.
    """
    number = _rename_without_replacing(os.fsencode(source), os.fsencode(target))
    if number == 0:
        return True
    if number in {errno.EEXIST, errno.ENOTEMPTY}:
        return False
    if number not in _NO_SUCH_FACILITY:
        raise OSError(number, os.strerror(number), str(source), None, str(target))
    if os.path.lexists(target):
        return False
    source.rename(target)
    return True


def _rename_without_replacing(source: bytes, target: bytes) -> int:
    """Ask Linux for it, and return 0 or the error number."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # glibc 2.28, musl 1.2.5
    except (AttributeError, OSError, TypeError):
        return errno.ENOSYS
    if rename(_HERE, source, _HERE, target, _NO_REPLACE) == 0:
        return 0
    return ctypes.get_errno()


def limit_this_process(seconds: int, memory_bytes: int, file_bytes: int = 0) -> None:
    """Bound processor time, address space and written files of this process, and write no core.

    Without the `resource` module (Windows) there is no bound; the caller's own timeout remains.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(what, (value, value))


def private_folder() -> Path:
    """Return where this user alone remembers things: XDG's state folder, else the local equivalent.

    A user without a home (a number in a container) remembers nothing: there the path can never be made.
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir())
    else:
        try:
            base = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
        except RuntimeError:
            base = Path(os.devnull)
    return base / "penultimate"


def host_name() -> str:
    """Return this machine's name."""
    return socket.gethostname() or platform.node() or "unknown host"


def user_name() -> str:
    """Return the name of the user whose rights this process has, or the number where it has none."""
    try:
        import pwd
    except ImportError:
        return getpass.getuser()
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def process_is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that ended and was not waited for does not.

    Where that cannot be asked, True.
    """
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    with contextlib.suppress(OSError):  # Linux tells what kill does not: Z and X are dead
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    return True


def machine() -> str:
    """Return where a process number means something: this host, since it started, in this container.

    Outside Linux the host's name alone.
    """
    parts = [host_name()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def is_own(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user; Windows knows no owner of this kind: True."""
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def nobody_writes(status: os.stat_result) -> bool:
    """Whether a folder's mode lets nobody write in it; Windows means something else by that: False."""
    return sys.platform != "win32" and not status.st_mode & 0o222


def has_default_list(folder: Path) -> bool:
    """Whether what is made in a folder is granted by an access list of the folder's; False where none exist."""
    if not hasattr(os, "getxattr"):
        return False
    with contextlib.suppress(OSError):
        return bool(os.getxattr(folder, "system.posix_acl_default"))
    return False


def kind_of(mode: int) -> str:
    """Return what kind of thing a mode of `os.stat_result` belongs to, with its article.

    Examples
    --------
    >>> kind_of(0o010644), kind_of(0o040755)
    ('a FIFO', 'a folder')
    """
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def advice(number: int | None) -> str:
    """Return what a person can do about an error number of the operating system, in a few words."""
    if number == errno.EROFS:
        return "nothing can be written there, only read: choose another place, then run again"
    if number in {errno.EACCES, errno.EPERM}:
        return "ask its owner for the right to write, or choose another place, then run again"
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return "free space, then run again"
    if number == errno.ENOENT:
        return "make the folder that it is to lie in, then run again"
    if number in {errno.ENOTDIR, errno.EISDIR}:
        return "something else has its place, or the place of its folder: move that away, then run again"
    if number == errno.ENAMETOOLONG:
        return "choose a shorter name, then run again"
    if number == errno.ELOOP:
        return "remove the symbolic link, then run again"
    return "see to the disk and the folder, then run again"


def file_opener(flags: int = READ_FLAGS) -> Callable[[str, int], int]:
    """Return an opener for `open` that never follows a link and never waits for a FIFO."""

    def opener(name: str, _flags: int) -> int:
        return os.open(name, flags)

    return opener
