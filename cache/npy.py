"""A .npy file that holds a table of floats, read piece by piece: nothing in it is executed, nothing mapped."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import InputChangedError, InvalidInputError
from cache.hashing import digest_of_range, read_at

_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class NpyTable:
    """An open .npy file with a table that lies inside it."""

    file: IO[bytes]
    named: Path
    """What people know it by."""
    status: os.stat_result
    begin: int
    """Offset of the first value, bytes."""
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    by_column: bool
    """Whether its columns, not its rows, lie contiguous."""

    def digest(self) -> str:
        """Return the SHA-256 of the whole file."""
        return digest_of_range(self.file.fileno(), 0, self.status.st_size)

    def batches(self, rows: int, digest: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first row, values) of all rows, so many at a time.

        Raises
        ------
        InputChangedError
            When the last were yielded: the file is not, or no longer, the one with this digest.
        """
        n, dimension = self.shape
        seen = hashlib.sha256(read_at(self.file.fileno(), 0, self.begin))
        for start in range(0, n, rows):
            stop = min(n, start + rows)
            if self.by_column:
                yield start, self._by_column(start, stop)
                continue
            row_bytes = dimension * self.dtype.itemsize
            raw = self._bytes(self.begin + start * row_bytes, (stop - start) * row_bytes)
            seen.update(raw)
            yield start, np.frombuffer(raw, self.dtype).reshape(stop - start, dimension)
        end = self.begin + n * dimension * self.dtype.itemsize
        seen.update(read_at(self.file.fileno(), end, max(0, self.status.st_size - end)))
        found = self.digest() if self.by_column else seen.hexdigest()
        now = os.fstat(self.file.fileno())
        if found != digest or (now.st_size, now.st_mtime_ns) != (
            self.status.st_size,
            self.status.st_mtime_ns,
        ):
            raise self._changed()

    def _by_column(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows of a table whose columns lie contiguous."""
        n, dimension = self.shape
        item = self.dtype.itemsize
        columns = [
            self._bytes(self.begin + (k * n + start) * item, (stop - start) * item) for k in range(dimension)
        ]
        return np.frombuffer(b"".join(columns), self.dtype).reshape(dimension, stop - start).T

    def _bytes(self, offset: int, count: int) -> bytes:
        """Read bytes that were there when the file was opened."""
        raw = read_at(self.file.fileno(), offset, count)
        if len(raw) < count:
            raise self._changed()
        return raw

    def _changed(self) -> InputChangedError:
        return InputChangedError(f"{self.named}: changed while it was being read: import it again")


@contextlib.contextmanager
def open_npy(path: Path, named: Path) -> Iterator[NpyTable]:
    """Open a .npy file that holds floats (n, d).

    Parameters
    ----------
    path : Path
        A regular file.
    named : Path
        What people know it by.

    Raises
    ------
    InvalidInputError
        It is something else.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInputError(f"{named}: cannot be read: {error.strerror or error}: see to that") from error
    with file:
        shape, by_column, dtype = _header(file, named)
        status, begin = os.fstat(file.fileno()), file.tell()
        if len(shape) != 2 or min(shape) < 1 or dtype.kind != "f" or dtype.itemsize > 8:
            raise InvalidInputError(
                f"{named}: holds {dtype} {shape}: expected floats (n, d), as astype('float32') makes them"
            )
        needed = begin + math.prod(shape) * dtype.itemsize
        if status.st_size < needed:
            raise InvalidInputError(
                f"{named}: has {status.st_size} bytes, {dtype} {shape} take {needed}: it was cut short, "
                "save the features again"
            )
        yield NpyTable(file, named, status, begin, (shape[0], shape[1]), dtype, by_column)


def _header(file: IO[bytes], named: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and dtype."""
    beginning = file.read(len(_MAGIC))
    if beginning != _MAGIC:
        raise InvalidInputError(
            f"{named}: starts with {beginning!r}, so it is no .npy file: save the features with numpy.save"
        )
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(f"version {version}")
        readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, by_column, dtype = readers[version[0]](file)
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
        if any(type(size) is not int for size in shape):
            raise ValueError(f"shape {shape}")
    except Exception as error:  # tokenizer, parser and dtype fail in many ways on what anybody wrote there
        raise InvalidInputError(
            f"{named}: is no .npy file that can be read: {ascii(str(error))[1:-1][:120]}: save the features "
            "with numpy.save as a (n, d) array of float32"
        ) from error
    return shape, by_column, dtype
