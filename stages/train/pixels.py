"""Images of a training job: decoded once and kept at full size where they fit, else decoded every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from stages.vision.images import read_image

T = TypeVar("T")
R = TypeVar("R")


class ImageStore:
    """The images of some files, as RGB at their full size.

    A store of shrunken images would change what a random crop sees, so there is none.

    Parameters
    ----------
    paths : sequence of Path
        n files.
    budget : int
        Bytes of pixels to keep in memory. The files that come after the budget is spent are decoded anew
        every time they are asked for.
    workers : int or None
        Threads; None = as many as torch computes with.

    Raises
    ------
    BadImageError
        A file cannot be decoded.
    """

    def __init__(self, paths: Sequence[Path], *, budget: int, workers: int | None = None) -> None:
        self._paths = tuple(paths)
        self._pool = ThreadPoolExecutor(workers or torch.get_num_threads(), thread_name_prefix="pixels")
        self._kept: dict[int, Image.Image] = {}
        self._left = budget
        self._fill()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Image.Image:
        kept = self._kept.get(row)
        return read_image(self._paths[row]) if kept is None else kept

    @property
    def kept(self) -> int:
        """How many images lie in memory."""
        return len(self._kept)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Call a function on items in the store's threads, in order."""
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """End the threads and let the pixels go."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()

    def _fill(self) -> None:
        """Decode from the first file on until the budget is spent, and no further."""
        chunk = 64
        for first in range(0, len(self), chunk):
            rows = range(first, min(first + chunk, len(self)))
            for row, image in zip(rows, self._pool.map(self.__getitem__, rows), strict=True):
                self._left -= image.width * image.height * 4
                if self._left < 0:
                    return
                self._kept[row] = image
