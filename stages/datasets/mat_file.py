"""Reading MATLAB files, version 5: what the annotations of data sets are written in.

Nothing here is larger than the file says and the file allows: every length is checked against the bytes that are
there, so that a damaged file is refused. (The usual reader, scipy's, ends the process on some of them.)
Format: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Storage type of a data element -> numpy's name for it."""
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Storage type of characters -> their encoding."""
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHARACTERS = 1, 2, 4
ARRAYS = range(6, 16)
"""Classes of arrays of numbers."""
DEEPEST = 16
"""Arrays within arrays that are followed."""
LARGEST = 1 << 28
"""Bytes that a compressed element may unpack to."""


class NotMatError(ValueError):
    """The bytes are no MATLAB file of version 5, or a damaged one."""


def read_mat(content: bytes) -> dict[str, Any]:
    """Return the variables of a MATLAB file.

    Parameters
    ----------
    content : bytes
        The file.

    Returns
    -------
    dict
        By name: numbers as an ndarray without axes of length 1, characters as str (rows joined), a cell array as
        a list and a struct array as a list of dictionaries, both in MATLAB's order.

    Raises
    ------
    NotMatError
        Not such a file, cut short, damaged, or of a kind that no annotation needs (sparse, objects).
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or not content.startswith(b"MATLAB 5.0"):
        raise NotMatError("it does not begin as a MATLAB file of version 5 does")
    at, found = _Bytes(content, order, 128), {}
    while at.left:
        kind, data = at.element()
        if kind == COMPRESSED:
            kind, data = _Bytes(_inflated(data), order).element()
        if kind == MATRIX:
            name, value = _array(_Bytes(data, order), DEEPEST)
            found[name] = value
    return found


def _inflated(data: bytes) -> bytes:
    """Unpack a compressed element."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, LARGEST)
    except zlib.error as error:
        raise NotMatError(f"a compressed part is damaged ({error})") from error
    if not unpacker.eof:
        raise NotMatError("a compressed part is cut short, or unpacks to too much")
    return content


@dataclass
class _Bytes:
    """Bytes with a place up to which they have been read."""

    content: bytes
    order: str
    """numpy's sign of the byte order."""
    place: int = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.content) - self.place

    def take(self, count: int) -> bytes:
        """Read some bytes."""
        if count > self.left:
            raise NotMatError(f"it ends {count - self.left} bytes too early")
        self.place += count
        return self.content[self.place - count : self.place]

    def element(self) -> tuple[int, bytes]:
        """Read one data element: its type and its bytes."""
        first = self.number(4)
        if first >> 16:  # a short one: length, type and data in eight bytes
            return first & 0xFFFF, self.take(4)[: first >> 16]
        data = self.take(self.number(4))
        if first != COMPRESSED:
            self.take(min(-len(data) % 8, self.left))
        return first, data

    def number(self, size: int) -> int:
        """Read one unsigned number."""
        return int.from_bytes(self.take(size), "little" if self.order == "<" else "big")

    def numbers(self) -> np.ndarray[Any, Any]:
        """Read one element of numbers."""
        kind, data = self.element()
        if kind not in NUMBERS:
            raise NotMatError(f"numbers of type {kind}, which there is not")
        dtype = np.dtype(self.order + NUMBERS[kind])
        if len(data) % dtype.itemsize:
            raise NotMatError(f"{len(data)} bytes are no numbers of {dtype.itemsize} bytes each")
        return np.frombuffer(data, dtype)

    def text(self) -> str:
        """Read one element of characters."""
        kind, data = self.element()
        encoding = TEXTS.get(kind, "")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        try:
            return data.decode(encoding)
        except (LookupError, UnicodeDecodeError) as error:
            raise NotMatError("characters that are none") from error


def _array(at: _Bytes, depth: int) -> tuple[str, Any]:
    """Read one array: its name and its value."""
    if not at.left:
        return "", np.empty(0)  # an empty cell
    if depth == 0:
        raise NotMatError(f"arrays lie more than {DEEPEST} deep in each other")
    flags, shape, name = at.numbers(), [int(n) for n in at.numbers()], at.text()
    if not len(flags) or any(n < 0 for n in shape):
        raise NotMatError("an array without class or with a negative length")
    kind, count = int(flags[0]) & 0xFF, math.prod(shape)
    if kind == CHARACTERS:
        return name, at.text() if at.left else ""
    if kind in ARRAYS:
        values = at.numbers()
        if len(values) != count:
            raise NotMatError(f"{len(values)} numbers in an array of {count}")
        return name, values.reshape(shape, order="F").squeeze()
    if kind == CELL:
        return name, _several(at, count, lambda: _inner(at, depth))
    if kind == STRUCT:
        return name, _structs(at, count, depth)
    raise NotMatError(f"an array of class {kind}, which no annotation needs")


def _several(at: _Bytes, count: int, read: Callable[[], Any]) -> list[Any]:
    """Read several values, each of which takes eight bytes at least."""
    if count * 8 > at.left:
        raise NotMatError(f"{count} arrays cannot lie in {at.left} bytes")
    return [read() for _ in range(count)]


def _inner(at: _Bytes, depth: int) -> Any:
    """Read an array within an array."""
    kind, data = at.element()
    if kind != MATRIX:
        raise NotMatError(f"type {kind} where an array was due")
    return _array(_Bytes(data, at.order), depth - 1)[1]


def _structs(at: _Bytes, count: int, depth: int) -> list[dict[str, Any]]:
    """Read a struct array."""
    lengths = at.numbers()
    _, names = at.element()
    width = int(lengths[0]) if len(lengths) == 1 else 0
    if width < 1 or len(names) % width:
        raise NotMatError("the names of a struct's fields are damaged")
    fields = [names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), width)]
    if not fields:
        return []
    return _several(at, count, lambda: {field: _inner(at, depth) for field in fields})
