"""The user block: what stands before the HDF5 part of an entry, byte by byte.

::

    0    magic               16 bytes
    16   format version      uint32, little endian, as all numbers
    20   zero                uint32
    24   size of the block   uint64, a power of two from 65,536 up
    32   size of the index   uint64
    40   index digest        SHA-256 of bytes 0-39 and of the index
    72   index               canonical JSON, UTF-8
    ...  zeros               to the end of the block

HDF5 ignores what stands before its signature at a power of two, so every HDF5 reader opens the file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAGIC = b"\x89PENULTIMATE\r\n\x1a\n"
FORMAT_VERSION = 1
MINIMUM_BLOCK_BYTES = 1 << 16
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_HEAD = struct.Struct("<16sIIQQ")
HEADER_BYTES = _HEAD.size + 32

_PIECE_BYTES = 1 << 22

ReadAt = Callable[[int, int], bytes]
"""Called with (offset, count); returns at most count bytes."""


class DefectError(Exception):
    """The bytes are no entry; the text is the defect in a few words. Never leaves the cache."""


class NewerDefectError(DefectError):
    """A sound user block of a later format version."""


@dataclass(frozen=True)
class UserBlock:
    """A user block whose digest holds."""

    block_bytes: int
    index: bytes
    index_sha256: str


def memory_bound(index: bytes) -> int:
    """Return more bytes than decoding an index and checking its spelling takes, without decoding it.

    ``[[],[],[], ...`` becomes forty times its size in Python objects. An entry is refused where this
    bound is beyond its file's size, and the writer makes the user block large enough that it is not.
    The coefficients are measured with CPython 3.11 and rounded up; a test holds them.
    """
    widest_text = 4 if index.isascii() else 16
    containers = index.count(b"[") + 2 * index.count(b"{")
    strings, others = index.count(b'"') // 2, index.count(b",") + index.count(b":")
    return (1 << 12) + widest_text * len(index) + 176 * containers + 112 * strings + 112 * others


def block_bytes_for(index: bytes, data_bytes: int) -> int:
    """Return the smallest block that holds an index and makes the file large enough for its bound.

    Parameters
    ----------
    index : bytes
        Or one of at least the same size and the same structure.
    data_bytes : int
        What will stand behind the block, at least.
    """
    size = MINIMUM_BLOCK_BYTES
    bound = memory_bound(index)
    while size < HEADER_BYTES + len(index) or is_bloated(bound, size + data_bytes):
        size *= 2
    return size


def is_bloated(bound: int, file_bytes: int) -> bool:
    """Whether an index may take more memory than its file's size allows."""
    return bound > file_bytes


def pack(index: bytes, block_bytes: int) -> bytes:
    """Return header and index; the caller leaves zeros up to ``block_bytes``."""
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, 0, block_bytes, len(index))
    return head + hashlib.sha256(head + index).digest() + index


def unpack(read_at: ReadAt, file_bytes: int) -> UserBlock:
    """Read and check the user block; holes of the file take no memory, whatever size they declare.

    Raises
    ------
    DefectError
        Whatever is not as written above.
    NewerDefectError
        The digest holds, the version is later than this program's.
    """
    head = read_at(0, HEADER_BYTES)
    if head.startswith(HDF5_SIGNATURE):
        raise DefectError("is plain HDF5, without an entry's index in front of it")
    if not head.startswith(MAGIC):
        raise DefectError(f"starts with {head[:16]!r}, not with an entry's magic bytes")
    if len(head) < HEADER_BYTES:
        raise DefectError("truncated inside its header")
    _, version, zero, block_bytes, index_bytes = _HEAD.unpack_from(head)
    if block_bytes < MINIMUM_BLOCK_BYTES or block_bytes & (block_bytes - 1) or block_bytes > file_bytes:
        raise DefectError(f"declares a user block of {block_bytes} bytes in a file of {file_bytes}")
    if index_bytes > block_bytes - HEADER_BYTES:
        raise DefectError(f"declares an index of {index_bytes} bytes in a user block of {block_bytes}")
    index = _index(read_at, index_bytes)
    digest = hashlib.sha256(head[: _HEAD.size])
    digest.update(index)
    if digest.digest() != head[_HEAD.size :]:
        raise DefectError("its index does not match its index digest")
    if version > FORMAT_VERSION:
        raise NewerDefectError(f"format version {version}, this program knows {FORMAT_VERSION}")
    if version != FORMAT_VERSION or zero:
        raise DefectError(f"declares format version {version}, {zero}")
    if block_bytes > max(MINIMUM_BLOCK_BYTES, 4 * memory_bound(index)):
        raise DefectError(f"declares a user block of {block_bytes} bytes for an index of {index_bytes}")
    for offset, count in _pieces(HEADER_BYTES + index_bytes, block_bytes):
        if read_at(offset, count).count(0) != count:
            raise DefectError("holds bytes between its index and its HDF5 part")
    return UserBlock(block_bytes=block_bytes, index=index, index_sha256=digest.hexdigest())


def _index(read_at: ReadAt, index_bytes: int) -> bytes:
    """Read an index up to where it cannot be one: a hole in the file reads as zeros, which no JSON holds."""
    found = []
    for offset, count in _pieces(HEADER_BYTES, HEADER_BYTES + index_bytes):
        piece = read_at(offset, count)
        found.append(piece)
        if b"\0" in piece or len(piece) < count:
            break  # what follows cannot make its digest fit
    return b"".join(found)


def _pieces(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, count) of a range, a few megabytes at a time."""
    for offset in range(start, stop, _PIECE_BYTES):
        yield offset, min(_PIECE_BYTES, stop - offset)
