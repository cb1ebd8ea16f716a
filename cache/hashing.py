"""SHA-256 over arrays and files, in one piece and block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cache.index import BLOCK_BYTES
from cache.system import read_piece

_CHUNK_BYTES = 1 << 22

BytesDone = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class BlockHasher:
    """Digests of consecutive blocks of a stream that arrives in pieces of any size."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._current = hashlib.sha256()
        self._filled = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream."""
        view = memoryview(data).cast("B")
        while view:
            piece = view[: BLOCK_BYTES - self._filled]
            self._current.update(piece)
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == BLOCK_BYTES:
                self._close_block()

    def digests(self) -> tuple[str, ...]:
        """Return the digests of all blocks; the stream has ended."""
        if self._filled:
            self._close_block()
        return tuple(self._digests)

    def _close_block(self) -> None:
        """Keep the digest of the current block and begin the next."""
        self._digests.append(self._current.hexdigest())
        self._current, self._filled = hashlib.sha256(), 0


def read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Read up to so many bytes from an offset; fewer only where the file ends.

    Several threads may read from one descriptor at a time.
    """
    pieces = []
    while count > 0 and (piece := read_piece(descriptor, min(count, _CHUNK_BYTES), offset)):
        pieces.append(piece)
        offset, count = offset + len(piece), count - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def digest_of_range(descriptor: int, start: int, end: int, progress: BytesDone | None = None) -> str:
    """Return the SHA-256 of a range of an open file, 64 hex digits."""
    digest = hashlib.sha256()
    position = start
    while position < end and (piece := read_at(descriptor, position, min(_CHUNK_BYTES, end - position))):
        digest.update(piece)
        position += len(piece)
        if progress is not None:
            progress(position - start, end - start)
    return digest.hexdigest()
