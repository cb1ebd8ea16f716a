"""The trash: each removal has a name of its own in it, so that nothing done to one ever meets another.

::

    ROOT/trash/KEY.SECONDS-TOKEN.h5      an entry that was removed so many seconds after the epoch
    ROOT/trash/KEY.SECONDS-TOKEN.json    its provenance
    ROOT/trash/KEY/KEY.h5, KEY.json      the same, as earlier versions put it there

What has another name, or lies behind a symbolic link, is somebody else's and stays.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.atomic import make_folder

_NAME = re.compile(r"(?P<key>[0-9a-f]{64})\.(?P<seconds>[0-9]{1,12})-[0-9a-f]{8}\.(?:h5|json)")
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Thrown:
    """One removal."""

    key: str
    when: float
    """Seconds since the epoch."""
    path: Path
    """Where the entry lies, or lay."""
    folder: Path | None = None
    """Its own, where an earlier version removed it."""

    @property
    def side(self) -> Path:
        """Where its provenance lies, if it had one."""
        return self.path.with_suffix(".json")

    @property
    def is_whole(self) -> bool:
        """Whether there is a file that could be taken back."""
        with contextlib.suppress(OSError):
            return stat.S_ISREG(self.path.lstat().st_mode)
        return False


def throw_away(path: Path, root: Path) -> Path:
    """Move an entry and its provenance to the trash, and return where it lies now.

    Raises
    ------
    FileNotFoundError
        It is gone.
    OSError
        It cannot be moved.
    """
    folder = make_folder(root / "trash", root)
    target = folder / f"{path.stem}.{int(time.time())}-{secrets.token_hex(4)}{path.suffix}"
    path.rename(target)
    with contextlib.suppress(FileNotFoundError):
        path.with_suffix(".json").rename(target.with_suffix(".json"))
    return target


def thrown(root: Path, key: str | None = None) -> list[Thrown]:
    """Return the removals whose files are still there, of one key or of all, the newest first."""
    folder = root / "trash"
    if folder.is_symlink():
        return []
    found = {one.path: one for one in _all_in(folder) if key in {None, one.key}}
    return sorted(found.values(), key=lambda one: (-one.when, one.path))


def _all_in(folder: Path) -> Iterator[Thrown]:
    """Yield a removal for each file in the trash."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            if match := _NAME.fullmatch(path.name):
                # Some network mounts leave ctime alone when they rename.
                when = max(float(match["seconds"]), status.st_ctime)
                yield Thrown(match["key"], when, path.with_suffix(".h5"))
            elif _KEY.fullmatch(path.name) and stat.S_ISDIR(status.st_mode):
                when = max(status.st_mtime, status.st_ctime)
                yield Thrown(path.name, when, path / f"{path.name}.h5", path)
