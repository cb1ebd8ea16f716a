"""Which files this user has verified, so that a file that did not change is hashed once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cache.digests import CLOCK_RESOLUTION_SECONDS
from cache.memory import Memory, stamp_of

_TABLE = """create table if not exists verified_2 (
    device text, inode text, size integer, mtime_ns integer, ctime_ns integer,
    index_sha256 text, key text, primary key (device, inode)) without rowid"""


class VerifiedFiles:
    """A private memory of verified files, by device, inode, size, mtime and ctime.

    Parameters
    ----------
    folder : Path
        This user's own, made with mode 0700. Where it cannot be used files are verified each time.
    checked : bool
        Whether more than the bytes was checked: what was not is not remembered as if it were.
    """

    def __init__(self, folder: Path, *, checked: bool = False) -> None:
        self._memory = Memory(folder / ("checked.sqlite" if checked else "verified.sqlite"), _TABLE)

    def knows(self, status: os.stat_result, index_sha256: str, key: str) -> bool:
        """Whether this very state of the file was verified, with this index, as the entry of this key."""
        query = "select * from verified_2 where device = ? and inode = ?"
        rows = self._memory.recall(query, (str(status.st_dev), str(status.st_ino)))
        return rows == [(*stamp_of(status), index_sha256, key)]

    def remember(self, status: os.stat_result, index_sha256: str, key: str) -> None:
        """Keep a verified state, unless the file is so new that it could change unnoticed."""
        if status.st_ctime_ns > time.time_ns() - int(CLOCK_RESOLUTION_SECONDS * 1e9):
            return
        row = (*stamp_of(status), index_sha256, key)
        self._memory.remember("insert or replace into verified_2 values (?, ?, ?, ?, ?, ?, ?)", [row])
