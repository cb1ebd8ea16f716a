"""The training loop: one optimiser step after another, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.errors import DivergedError
from stages.records import CurvePoint, Preprocessing, TrainRecipe
from stages.train.augment import cut, draw_crop
from stages.train.model import loss_of
from stages.train.optimiser import cosine, set_learning_rate
from stages.train.order import generator_of_step, rows_of_step
from stages.train.pixels import ImageStore
from stages.vision.devices import numeric_precision
from stages.vision.transforms import RESAMPLING, normalise, stack

Batch = tuple[Tensor, Tensor]
"""uint8 images (b, 3, s, s) and their labels."""


@dataclass(frozen=True)
class Source:
    """Where the batches of a job come from."""

    images: ImageStore
    labels: NDArray[np.generic]
    """(n,) int64 or (n, K) int8."""
    preprocessing: Preprocessing
    """Its size is the size trained at."""
    recipe: TrainRecipe
    seed: int

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: a pure function of the step."""
        recipe, rows = self.recipe, self.rows(step)
        rng = generator_of_step(self.seed, step)
        loaded = self.images.map(self.images.__getitem__, rows.tolist())
        crops = [
            draw_crop(rng, image.size, recipe.crop_scale, recipe.crop_ratio, recipe.horizontal_flip)
            for image in loaded
        ]
        size, resample = self.preprocessing.size, RESAMPLING[self.preprocessing.interpolation]
        views = self.images.map(
            lambda pair: cut(*pair, size, resample), list(zip(loaded, crops, strict=True))
        )
        return stack(views), torch.from_numpy(self.labels[rows])

    def rows(self, step: int) -> NDArray[np.intp]:
        """Return the rows of a step."""
        return rows_of_step(self.seed, step, len(self.images), self.recipe.batch_size)


def batches(source: Source, start: int, stop: int) -> Iterator[Batch]:
    """Yield the batches of the steps, the next ones being cut while the current one is trained on."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ahead = [pool.submit(source.batch, step) for step in range(start, min(start + 2, stop))]
        for step in range(start, stop):
            batch = ahead.pop(0).result()
            if step + 2 < stop:
                ahead.append(pool.submit(source.batch, step + 2))
            yield batch


def train(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    source: Source,
    *,
    learning_rate: float,
    device: torch.device,
    after_step: Callable[[CurvePoint], None],
) -> None:
    """Train in place for ``recipe.steps`` steps.

    Raises
    ------
    DivergedError
        The loss is NaN or infinite, with its step.
    """
    recipe = source.recipe
    network.train()
    started = time.perf_counter()
    for step, (images, labels) in enumerate(batches(source, 0, recipe.steps)):
        rate = cosine(step, recipe.steps, learning_rate)
        set_learning_rate(optimiser, rate)
        with numeric_precision(recipe.precision, device):
            inputs = normalise(images.to(device, non_blocking=True), source.preprocessing)
            loss = loss_of(network(inputs), labels.to(device, non_blocking=True))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise DivergedError(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        speed = (step + 1) * recipe.batch_size / (time.perf_counter() - started)
        after_step(CurvePoint(step, value, rate, speed))
