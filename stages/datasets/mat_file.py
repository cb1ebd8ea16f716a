"""Reading MATLAB files, version 5: what the annotations of data sets are written in.

Nothing here is larger than the file says and the file allows: every length is checked against the bytes that are
there, so that a damaged file is refused. (The usual reader, scipy's, ends the process on some of them.)
Format: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Storage type of a data element -> numpy's name for it."""
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Storage type of characters -> their encoding."""
TAG = {order: struct.Struct(f"{order}II") for order in "<>"}
"""What a data element begins with, by byte order."""
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHARACTERS = 1, 2, 4
ARRAYS = range(6, 16)
"""Classes of arrays of numbers."""
DEEPEST = 16
"""Arrays within arrays that are followed."""
LARGEST = 1 << 28
"""Bytes that the compressed elements of a file may unpack to, together."""


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
    at, found = _Bytes(content, order, 128, len(content)), {}
    room = LARGEST
    while at.left:
        kind, data = at.element()
        if kind == COMPRESSED:
            unpacked = _inflated(data.rest(), room)
            room -= len(unpacked)
            kind, data = _Bytes(unpacked, order, 0, len(unpacked)).element()
        if kind == MATRIX:
            name, value = _array(data, DEEPEST)
            found[name] = value
    return found


def _inflated(data: bytes, most: int) -> bytes:
    """Unpack a compressed element of up to ``most`` bytes."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, max(most, 1))
    except zlib.error as error:
        raise NotMatError(f"a compressed part is damaged ({error})") from error
    if not unpacker.eof:
        raise NotMatError("a compressed part is cut short, or unpacks to too much")
    return content


@dataclass(slots=True)
class _Bytes:
    """A stretch of bytes with a place up to which it has been read; nothing is copied before it is wanted."""

    content: bytes
    order: str
    """numpy's sign of the byte order."""
    place: int
    end: int

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.place

    def rest(self) -> bytes:
        """Return the bytes not read yet."""
        return self.content[self.place : self.end]

    def element(self) -> tuple[int, _Bytes]:
        """Read one data element: its type and its bytes."""
        start = self.place + 8
        if start > self.end:
            raise NotMatError(f"it ends {start - self.end} bytes too early")
        first, size = TAG[self.order].unpack_from(self.content, self.place)
        if first >> 16:  # a short one: length, type and data in eight bytes
            self.place = start
            return first & 0xFFFF, _Bytes(
                self.content, self.order, start - 4, start - 4 + min(first >> 16, 4)
            )
        end = start + size
        if end > self.end:
            raise NotMatError(f"it ends {end - self.end} bytes too early")
        self.place = end if first == COMPRESSED else min(end + -size % 8, self.end)
        return first, _Bytes(self.content, self.order, start, end)

    def numbers(self) -> np.ndarray[Any, Any]:
        """Read one element of numbers."""
        kind, data = self.element()
        if kind not in NUMBERS:
            raise NotMatError(f"numbers of type {kind}, which there is not")
        dtype = np.dtype(self.order + NUMBERS[kind])
        if data.left % dtype.itemsize:
            raise NotMatError(f"{data.left} bytes are no numbers of {dtype.itemsize} bytes each")
        return np.frombuffer(self.content, dtype, data.left // dtype.itemsize, data.place)

    def integers(self) -> tuple[int, ...]:
        """Read one element of integers of four bytes, the usual header of an array."""
        kind, data = self.element()
        if kind not in (5, 6) or data.left % 4:
            raise NotMatError(f"{data.left} bytes of type {kind} where integers of four bytes were due")
        return struct.unpack_from(f"{self.order}{data.left // 4}i", self.content, data.place)

    def text(self) -> str:
        """Read one element of characters."""
        kind, data = self.element()
        encoding = TEXTS.get(kind, "")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        try:
            return data.rest().decode(encoding)
        except (LookupError, UnicodeDecodeError) as error:
            raise NotMatError("characters that are none") from error


def _array(at: _Bytes, depth: int) -> tuple[str, Any]:
    """Read one array: its name and its value."""
    if not at.left:
        return "", np.empty(0)  # an empty cell
    if depth == 0:
        raise NotMatError(f"arrays lie more than {DEEPEST} deep in each other")
    flags, shape, name = at.integers(), at.integers(), at.text()
    if not flags or any(n < 0 for n in shape):
        raise NotMatError("an array without class or with a negative length")
    kind, count = flags[0] & 0xFF, math.prod(shape)
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
    return _array(data, depth - 1)[1]


def _structs(at: _Bytes, count: int, depth: int) -> list[dict[str, Any]]:
    """Read a struct array."""
    lengths = at.integers()
    names = at.element()[1].rest()
    width = lengths[0] if len(lengths) == 1 else 0
    if width < 1 or len(names) % width:
        raise NotMatError("the names of a struct's fields are damaged")
    fields = [names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), width)]
    if not fields:
        return []
    return _several(at, count, lambda: {field: _inner(at, depth) for field in fields})
