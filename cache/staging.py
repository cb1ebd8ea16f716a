"""The staging log: batches on their way to an entry, each with its checksum, synced, resumable.

::

    frame   "PNFRAME1", uint64 size of the header, uint64 size of the payload,
            header (canonical JSON), payload, SHA-256 of all before

The first frame says what is being made, every other one holds a batch. A frame that is not whole, does
not match its SHA-256 or holds no batch is a torn tail: it is cut off, and work goes on from the frame before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.atomic import write_all, write_errors
from cache.keys import canonical_json
from cache.system import READ_FLAGS, WRITE_FLAGS, sync_folder

LOG_NAME = "batches.log"
SYNC_SECONDS = 1.0
"""A power cut costs at most this much work; a sync for every small batch would cost more than that."""

_HEAD = struct.Struct("<8sQQ")
_MAGIC = b"PNFRAME1"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Frame:
    """One frame whose checksum holds."""

    header: dict[str, Any]
    payload: bytes
    end: int
    """Offset behind the frame, bytes."""


class StagingLog:
    """An append-only log, open for one writer.

    Parameters
    ----------
    path : Path
        Made where it is absent; its folder has to exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with write_errors(path, "opening the staging log"):
            self._descriptor = os.open(path, WRITE_FLAGS | os.O_CREAT, 0o666)
            sync_folder(path.parent)
        self.end = 0
        self._synced = 0.0

    def recover(self, accept: Callable[[Frame], bool]) -> None:
        """Hand on the whole frames, one after the other; cut off the first that is refused, and all behind it."""
        with write_errors(self.path, "going on with the staging log"):
            for frame in read_frames(self.path):
                if not accept(frame):
                    break
                self.end = frame.end
            os.ftruncate(self._descriptor, self.end)

    def restart(self) -> None:
        """Forget every frame."""
        with write_errors(self.path, "emptying the staging log"):
            os.ftruncate(self._descriptor, 0)
        self.end = 0

    def append(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Add a frame; where that fails the log is as before.

        Raises
        ------
        CacheWriteError
            Disk full or device error.
        """
        text = canonical_json(header)
        head = _HEAD.pack(_MAGIC, len(text), len(payload)) + text
        digest = hashlib.sha256(head)
        digest.update(payload)
        with write_errors(self.path, "staging a batch"):
            try:
                end = write_all(self._descriptor, head, self.end)
                end = write_all(self._descriptor, payload, end)
                end = write_all(self._descriptor, digest.digest(), end)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self.end)
                raise
            self.end = end
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                self.sync()

    def sync(self) -> None:
        """Bring everything appended so far to the disk."""
        with write_errors(self.path, "syncing the staging log"):
            os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file; the log stays for a later resume. What had to reach the disk was synced before."""
        with contextlib.suppress(OSError):  # network file systems may tell of a full disk now
            os.close(self._descriptor)


def read_frames(path: Path, *, headers_only: bool = False) -> Iterator[Frame]:
    """Yield whole frames in order, stopping before the first one that is not.

    Memory stays at one frame; no size is believed beyond the file's own. With ``headers_only`` the
    payloads are stepped over and nothing is checked: for a first look before a checked reading.
    """
    descriptor = os.open(path, READ_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        position = 0
        while size - position >= _HEAD.size + _DIGEST_BYTES:
            head = file.read(_HEAD.size)
            magic, text_bytes, payload_bytes = _HEAD.unpack(head)
            end = position + _HEAD.size + text_bytes + payload_bytes + _DIGEST_BYTES
            if magic != _MAGIC or end > size:
                return
            text = file.read(text_bytes)
            if headers_only:
                if (header := _header(text)) is None:
                    return
                yield Frame(header=header, payload=b"", end=end)
                file.seek(end)
                position = end
                continue
            payload = file.read(payload_bytes)
            digest = hashlib.sha256(head + text)
            digest.update(payload)
            header = _header(text)
            if digest.digest() != file.read(_DIGEST_BYTES) or header is None:
                return
            yield Frame(header=header, payload=payload, end=end)
            position = end


def _header(text: bytes) -> dict[str, Any] | None:
    """Decode a header; None where it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        plain = json.loads(text)
        if isinstance(plain, dict):
            return plain
    return None
