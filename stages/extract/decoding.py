"""Decode the images of a split ahead of the forward passes, into 8-bit batches in the order of the rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.errors import BadImageError, DatasetError, InputError
from stages.records import ImageErrorPolicy, Preprocessing, Split
from stages.vision.images import read_image
from stages.vision.transforms import fit

_AHEAD = 3
"""Batches being decoded at a time, the one in use not counted."""


@dataclass(frozen=True)
class PixelBatch:
    """Consecutive rows of a split, decoded and fitted; every network that wants these pixels can read them."""

    pixels: Tensor
    """(b, 3, size, size) uint8, channels-last in memory; only the first ``len(rows)`` are images."""
    rows: NDArray[np.intp]
    """Positions in the split of the readable images."""
    first: int
    """First row of the split that belongs to the batch."""
    stop: int
    """First row behind the batch."""
    excluded: tuple[tuple[str, str], ...]
    """(id, reason) of the unreadable ones."""


@dataclass(frozen=True)
class _Decoding:
    """A batch on its way."""

    first: int
    array: NDArray[np.uint8]
    """(b, size, size, 3), filled row by row; shares its memory with ``tensor``."""
    tensor: Tensor
    rows: list[Future[BadImageError | None]]


def read_batches(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    start: int,
    on_bad_image: ImageErrorPolicy,
    pool: Executor,
    padded: bool = False,
    image_sha256: Sequence[str] | None = None,
) -> Iterator[PixelBatch]:
    """Yield the rows from ``start`` on in batches; Pillow decodes and resizes without Python's lock.

    Parameters
    ----------
    split : Split
    preprocessing : Preprocessing
        Of which mean and standard deviation do not matter here.
    batch_size, start : int
        Rows a batch, first row.
    on_bad_image : {"error", "exclude"}
    pool : Executor
        Threads that decode.
    padded : bool
        For a GPU: batches all of ``batch_size`` rows, the last one filled up with black images, so that one
        shape is all that a network ever sees; in page-locked memory where there is a GPU.
    image_sha256 : sequence of str, optional
        What the files must have, one a row.

    Raises
    ------
    BadImageError
        An image cannot be decoded and the policy is "error".
    UnreadFileError
        A file cannot be read, or is not the one that was hashed, whatever the policy.
    DatasetError
        Every image of the split is unreadable.
    """
    if on_bad_image not in ("error", "exclude"):
        raise InputError(f'on_bad_image is {on_bad_image!r}: say "error" or "exclude"')
    starts = iter(range(start, len(split), batch_size))
    waiting: deque[_Decoding] = deque()
    readable = 0
    try:
        while True:
            while len(waiting) <= _AHEAD and (first := next(starts, None)) is not None:
                waiting.append(_begin(split, preprocessing, first, batch_size, pool, padded, image_sha256))
            if not waiting:
                break
            batch = _collect(split, waiting.popleft(), on_bad_image)
            readable += len(batch.rows)
            yield batch
    finally:
        for decoding in waiting:
            for future in decoding.rows:
                future.cancel()
    if start == 0 and not readable:
        raise DatasetError(f"{split.name}: none of its {len(split)} images can be decoded")


def _begin(
    split: Split,
    preprocessing: Preprocessing,
    first: int,
    batch_size: int,
    pool: Executor,
    padded: bool,
    image_sha256: Sequence[str] | None,
) -> _Decoding:
    """Hand the images of one batch to the threads."""
    rows = range(first, min(first + batch_size, len(split)))
    size, count = preprocessing.size, batch_size if padded else len(rows)
    pinned = padded and torch.cuda.is_available()
    tensor = torch.empty((count, size, size, 3), dtype=torch.uint8, pin_memory=pinned)
    tensor[len(rows) :] = 0
    array = tensor.numpy()
    futures = [
        pool.submit(
            _read,
            split.paths[row],
            None if image_sha256 is None else image_sha256[row],
            preprocessing,
            array[row - first],
        )
        for row in rows
    ]
    return _Decoding(first, array, tensor, futures)


def _read(
    path: Path, sha256: str | None, preprocessing: Preprocessing, into: NDArray[np.uint8]
) -> BadImageError | None:
    """Decode and fit one image into its place, or return what is wrong with it."""
    try:
        into[:] = fit(read_image(path, sha256), preprocessing)
    except BadImageError as problem:
        return problem
    return None


def _collect(split: Split, decoding: _Decoding, policy: ImageErrorPolicy) -> PixelBatch:
    """Wait for a batch, and move its readable images together under the policy."""
    rows: list[int] = []
    excluded: list[tuple[str, str]] = []
    for row, future in enumerate(decoding.rows, start=decoding.first):
        problem = future.result()
        if problem is None:
            rows.append(row)
        elif policy == "error":
            raise problem
        else:
            excluded.append((split.ids[row], str(problem)))
    places = np.array(rows, np.intp)
    if excluded:
        decoding.array[: len(places)] = decoding.array[places - decoding.first]
    return PixelBatch(
        pixels=decoding.tensor.permute(0, 3, 1, 2),
        rows=places,
        first=decoding.first,
        stop=decoding.first + len(decoding.rows),
        excluded=tuple(excluded),
    )
