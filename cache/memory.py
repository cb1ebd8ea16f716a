"""What one user's machine remembers between runs: rows in a sqlite file that may be lost at any time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_SECONDS = 10.0
"""To wait for another process that is writing."""
_MAY_BE_SOUND = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
}  # fmt: skip
"""What the surroundings are to blame for; after everything else the file is removed."""


class Memory:
    """Rows that save work and mean nothing else: without them, everything is done once more.

    A file that is no sqlite file, or is damaged inside, has remembered nothing and is replaced. A
    folder that cannot be written, a full disk or a lock that is held too long: nothing is remembered.

    Parameters
    ----------
    path : Path
        The sqlite file; its folder is made with mode 0700.
    table : str
        "create table if not exists ...": of another name when its columns change.

    Examples
    --------
    >>> import tempfile
    >>> memory = Memory(Path(tempfile.mkdtemp()) / "m.sqlite", "create table if not exists t (a integer)")
    >>> memory.remember("insert into t values (?)", [(1,), (2,)])
    >>> memory.recall("select a from t where a > ?", [1])
    [(2,)]
    """

    def __init__(self, path: Path, table: str) -> None:
        self.path = path
        self._table = table

    def recall(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none where nothing could be remembered."""
        found: list[tuple[Any, ...]] = []
        with self._forgiving(), self._connection() as connection:
            found.extend(connection.execute(query, values))
        return found

    def remember(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row, all or none of them."""
        with self._forgiving(), self._connection() as connection, connection:
            connection.executemany(statement, rows)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Let nothing that is wrong with the memory reach those who use it; remove a damaged file."""
        try:
            yield
        except OSError:
            return
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _MAY_BE_SOUND:
                return
            for tail in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    self.path.with_name(f"{self.path.name}{tail}").unlink()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the file, with the table in it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_SECONDS)
        try:
            connection.execute("pragma synchronous = off")  # what a power cut destroys is computed again
            connection.execute(self._table)
            yield connection
        finally:
            connection.close()


def stamp_of(status: os.stat_result) -> tuple[str, str, int, int, int]:
    """Return what tells one state of a file from every other: device, inode, size, mtime, ctime."""
    return (
        str(status.st_dev), str(status.st_ino), status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )  # fmt: skip
