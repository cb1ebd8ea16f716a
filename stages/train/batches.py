"""Batches of a training job: which images, which crops, cut ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.records import Preprocessing, TrainRecipe
from stages.train.augment import crop_from, cut
from stages.train.order import draws_of_step, rows_of_step
from stages.train.pixels import ImageStore
from stages.vision.transforms import RESAMPLING, stack

_AHEAD = 2

Batch = tuple[Tensor, Tensor]
"""uint8 images (b, 3, s, s) and their labels."""


@dataclass(frozen=True)
class Source:
    """Where the batches of a job come from."""

    images: ImageStore
    labels: NDArray[Any]
    """(n,) int64 or (n, K) int8."""
    preprocessing: Preprocessing
    """Its size is the size trained at."""
    recipe: TrainRecipe
    seed: int

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: a pure function of the step, whatever the threads."""
        recipe = self.recipe
        rows = rows_of_step(self.seed, step, len(self.images), recipe.batch_size)
        draws = draws_of_step(self.seed, step, recipe.batch_size)
        views = self.images.map(self._view, list(zip(rows.tolist(), draws, strict=True)))
        return stack(views), torch.from_numpy(self.labels[rows])

    def _view(self, item: tuple[int, NDArray[np.float64]]) -> NDArray[np.uint8]:
        """Return one augmented image, (s, s, 3)."""
        row, draws = item
        pixels, recipe = self.images[row], self.recipe
        size = pixels.shape[1], pixels.shape[0]
        crop = crop_from(draws, size, recipe.crop_scale, recipe.crop_ratio, recipe.horizontal_flip)
        return cut(pixels, crop, self.preprocessing.size, RESAMPLING[self.preprocessing.interpolation])


def batches(source: Source, start: int, stop: int, *, pin: bool) -> Iterator[Batch]:
    """Yield the batches of the steps; the next ones are cut while the current one is trained on.

    Parameters
    ----------
    source : Source
    start, stop : int
        Steps.
    pin : bool
        Whether to put images into page-locked memory, for a GPU to fetch.
    """

    def prepare(step: int) -> Batch:
        images, labels = source.batch(step)
        return (images.pin_memory(), labels.pin_memory()) if pin else (images, labels)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ahead = [pool.submit(prepare, step) for step in range(start, min(start + _AHEAD, stop))]
        for step in range(start, stop):
            batch = ahead.pop(0).result()
            if step + _AHEAD < stop:
                ahead.append(pool.submit(prepare, step + _AHEAD))
            yield batch
