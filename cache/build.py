"""Turns a staging log into an entry; run as a child process, ``python -m cache.build LOG TARGET``.

Answers with one line of JSON: ``{"index_sha256": ...}``, or ``{"errno": ..., "error": ...}`` and exit
status 1. The target is whole, synced and proved when the child ends with 0, and worthless otherwise.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.atomic import write_all
from cache.children import answer_parent
from cache.hashing import BlockHasher, digest_of_range, read_at
from cache.hdf5 import contradictions, lay_out
from cache.index import ARRAY_NAMES, ArraySpec, Index, block_count
from cache.keys import canonical_json
from cache.layout import DefectError, block_bytes_for, pack, unpack
from cache.parse import parse_index
from cache.staging import Frame, read_frames
from cache.system import WRITE_FLAGS

_PLACEHOLDER = "0" * 64
_LARGEST_OFFSET = 10**18


@dataclass(frozen=True)
class _Rows:
    """What the headers of a staging log add up to."""

    first: dict[str, Any]
    ids: list[str]
    row_metadata: dict[str, list[str | None]]
    excluded: list[list[str]]
    batches: int


def build(log: Path, target: Path) -> str:
    """Write the entry that a staging log describes, prove it, and return its index digest.

    Raises
    ------
    OSError
        The disk refused.
    DefectError
        The log is not whole, or libhdf5 does not see what the index says.
    """
    rows = _add_up(log)
    arrays = _arrays(rows)
    draft = _index(rows, arrays)
    block_bytes = block_bytes_for(draft.to_json(), sum(spec.nbytes for spec in arrays.values()))
    offsets = lay_out(target, block_bytes, {name: (spec.dtype, spec.shape) for name, spec in arrays.items()})
    descriptor = os.open(target, WRITE_FLAGS)
    try:
        digests = _fill(descriptor, log, rows, arrays, offsets)
        placed = {
            name: replace(spec, offset=offsets[name], blocks=digests[name]) for name, spec in arrays.items()
        }
        size = os.fstat(descriptor).st_size
        with ThreadPoolExecutor(2) as pool:
            hashed = pool.submit(digest_of_range, descriptor, block_bytes, size)
            synced = pool.submit(os.fsync, descriptor)
            _refuse_contradictions(target, placed)
            index = replace(draft, arrays=placed)
            parse_index(index.to_json(), block_bytes, size)  # as any reader will: one digest is still to come
            index = replace(index, data_sha256=hashed.result())
            synced.result()
        raw = index.to_json()
        write_all(descriptor, pack(raw, block_bytes), 0)
        os.fsync(descriptor)
        return _prove(descriptor, size, raw)
    finally:
        os.close(descriptor)


def _add_up(log: Path) -> _Rows:
    """Collect the headers of the log."""
    frames = read_frames(log, headers_only=True)
    rows = _Rows(first=next(frames).header, ids=[], row_metadata={}, excluded=[], batches=0)
    batches = 0
    for frame in frames:
        batches += 1
        rows.ids.extend(frame.header["ids"])
        rows.excluded.extend(frame.header["excluded"])
        for name, column in frame.header["row_metadata"].items():
            rows.row_metadata.setdefault(name, []).extend(column)
    return replace(rows, batches=batches)


def _arrays(rows: _Rows) -> dict[str, ArraySpec]:
    """Describe the arrays, with place holders for offsets and digests that are at least as long."""
    n = len(rows.ids)
    shape = rows.first["arrays"]
    longest = max(len(name.encode("utf-8")) for name in rows.ids)
    described = {
        "features": (shape["features_dtype"], (n, shape["dimension"])),
        "labels": ("|i1", (n, len(rows.first["class_names"])))
        if rows.first["multi_label"]
        else ("<i8", (n,)),
        "ids": (f"|S{longest}", (n,)),
    }
    specs = {}
    for name, (dtype, dims) in described.items():
        spec = ArraySpec(dtype=dtype, shape=dims, offset=_LARGEST_OFFSET, blocks=())
        specs[name] = replace(spec, blocks=(_PLACEHOLDER,) * block_count(spec.nbytes))
    return specs


def _index(rows: _Rows, arrays: dict[str, ArraySpec]) -> Index:
    """Put the index together."""
    return Index(
        ingredients_json=canonical_json(rows.first["ingredients"], parsed=True),
        coordinates=rows.first["coordinates"],
        class_names=tuple(rows.first["class_names"]),
        multi_label=rows.first["multi_label"],
        row_metadata={name: tuple(column) for name, column in rows.row_metadata.items()},
        excluded=tuple((name, reason) for name, reason in rows.excluded),
        arrays=arrays,
        data_sha256=_PLACEHOLDER,
    )


def _fill(
    descriptor: int, log: Path, rows: _Rows, arrays: dict[str, ArraySpec], offsets: dict[str, int]
) -> dict[str, tuple[str, ...]]:
    """Write the values of all arrays to their places and return their block digests."""
    hashers = {name: BlockHasher() for name in ARRAY_NAMES}
    positions = dict(offsets)
    batches = 0
    width = int(arrays["ids"].dtype[2:])
    for header, features, labels in _checked_batches(log):
        batches += 1
        ids = b"".join(name.encode("utf-8").ljust(width, b"\0") for name in header["ids"])
        for name, data in (("features", features), ("labels", labels), ("ids", ids)):
            hashers[name].update(data)
            positions[name] = write_all(descriptor, data, positions[name])
    complete = all(positions[name] == offsets[name] + arrays[name].nbytes for name in ARRAY_NAMES)
    if batches != rows.batches or not complete:
        raise DefectError(f"batch {batches + 1} of {rows.batches} is damaged")
    return {name: hasher.digests() for name, hasher in hashers.items()}


def _checked_batches(log: Path) -> Iterator[tuple[dict[str, Any], memoryview, memoryview]]:
    """Yield header, features and labels of each batch whose checksum holds."""
    frames = read_frames(log)
    next(frames)
    for frame in _one_ahead(frames):
        cut = frame.header["features_bytes"]
        payload = memoryview(frame.payload)
        yield frame.header, payload[:cut], payload[cut:]


def _one_ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield frames while a thread reads and checks the one that comes next."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, frames, None)
        while (frame := upcoming.result()) is not None:
            upcoming = pool.submit(next, frames, None)
            yield frame


def _refuse_contradictions(target: Path, arrays: dict[str, ArraySpec]) -> None:
    """Refuse a file in which libhdf5 reads other values, or at other places, than the index will say."""
    for difference in contradictions(target, arrays):
        raise DefectError(difference)


def _prove(descriptor: int, size: int, raw: bytes) -> str:
    """Read the user block back as any reader will, and return the digest of its index."""
    block = unpack(lambda offset, count: read_at(descriptor, offset, count), size)
    if block.index != raw:
        raise DefectError("the index reads otherwise than it was written")
    return block.index_sha256


def main(arguments: list[str]) -> int:
    """Build, and answer the parent in one line."""
    gc.disable()  # a short life with long lists of ids: collecting costs time and frees nothing
    log, target = map(Path, arguments)
    try:
        answer: dict[str, Any] = {"index_sha256": build(log, target)}
    except (OSError, DefectError, StopIteration) as error:
        answer = {"errno": getattr(error, "errno", None), "error": f"{type(error).__name__}: {error}"}
    answer_parent(answer)
    return 0 if "index_sha256" in answer else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
