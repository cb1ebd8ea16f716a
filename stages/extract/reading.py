"""Decode the images of a split in threads, ahead of the forward pass and in the order of the rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.errors import BadImageError, DatasetError, InputError
from stages.records import ImageErrorPolicy, Preprocessing, Split
from stages.vision.images import read_image
from stages.vision.transforms import fit

_AHEAD = 3
"""Batches being decoded at a time, the one in use not counted."""

_Decoded = NDArray[np.uint8] | BadImageError


@dataclass(frozen=True)
class ReadBatch:
    """Consecutive rows, decoded and fitted."""

    images: list[NDArray[np.uint8]]
    """(size, size, 3) each; unreadable ones left out."""
    rows: NDArray[np.intp]
    """(len(images),) positions in the split."""
    stop: int
    """First row behind the batch."""
    excluded: tuple[tuple[str, str], ...]
    """(id, reason) of the unreadable ones."""


def read_batches(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    start: int,
    on_bad_image: ImageErrorPolicy,
    num_workers: int | None,
) -> Iterator[ReadBatch]:
    """Yield the rows from ``start`` on in batches; Pillow decodes and resizes without Python's lock.

    Raises
    ------
    BadImageError
        An image cannot be decoded and the policy is "error".
    DatasetError
        Every image of the split is unreadable.
    """
    if on_bad_image not in ("error", "exclude"):
        raise InputError(f'on_bad_image is {on_bad_image!r}: say "error" or "exclude"')
    workers = num_workers or torch.get_num_threads()
    starts = iter(range(start, len(split), batch_size))
    waiting: deque[tuple[int, list[Future[_Decoded]]]] = deque()
    readable = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        while True:
            while len(waiting) <= _AHEAD and (first := next(starts, None)) is not None:
                rows = range(first, min(first + batch_size, len(split)))
                waiting.append((first, [pool.submit(_read, split, row, preprocessing) for row in rows]))
            if not waiting:
                break
            first, futures = waiting.popleft()
            batch = _collect(split, first, [f.result() for f in futures], on_bad_image)
            readable += len(batch.rows)
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if start == 0 and not readable:
        raise DatasetError(f"{split.name}: none of its {len(split)} images can be decoded")


def _read(split: Split, row: int, preprocessing: Preprocessing) -> _Decoded:
    """Decode and fit one image, or return what is wrong with it."""
    try:
        return fit(read_image(split.paths[row]), preprocessing)
    except BadImageError as problem:
        return problem


def _collect(split: Split, first: int, decoded: list[_Decoded], policy: ImageErrorPolicy) -> ReadBatch:
    """Put the readable images of a batch together under the policy."""
    images: list[NDArray[np.uint8]] = []
    rows: list[int] = []
    excluded: list[tuple[str, str]] = []
    for row, item in enumerate(decoded, start=first):
        if isinstance(item, BadImageError):
            if policy == "error":
                raise item
            excluded.append((split.ids[row], str(item)))
        else:
            images.append(item)
            rows.append(row)
    return ReadBatch(images, np.array(rows, np.intp), first + len(decoded), tuple(excluded))
