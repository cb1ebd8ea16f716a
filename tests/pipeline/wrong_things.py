"""What stands where an entry, a table or a manifest belongs, and is none; and the one line that is said."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.cache_folder import cache_root

LOGIN = b"<!DOCTYPE html><html><body>Please log in</body></html>\n"
WHERE = ("backbone=b", "dataset=d", "split=train")


def entries() -> list[Path]:
    return sorted((cache_root() / "features" / "entries").glob("??/*.h5"))


def key() -> str:
    return entries()[0].stem


def put(path: Path, kind: str, good: bytes) -> None:
    """Put a wrong thing of some kind where a file belongs."""
    contents = {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "flipped": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:] if good else b"",
        "login page": LOGIN,
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "plain hdf5": b"\x89HDF\r\n\x1a\n" + bytes(4096),
    }
    if path.exists():
        path.chmod(0o644)
    path.unlink(missing_ok=True)
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("/nonexistent/x")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, inside(path.parent):
            listener.bind("s")
            Path("s").rename(path)
    else:
        assert kind == "device"
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes device files")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def one_line(result) -> str:
    """Return the only line that a refusal says."""
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.isprintable(), ascii(line)
    return line.removeprefix("error: ")
