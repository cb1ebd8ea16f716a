"""The training loop: one optimiser step after another, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stages.errors import DivergedError
from stages.records import CurvePoint
from stages.train.batches import Source, batches
from stages.train.curve import is_recorded
from stages.train.optimiser import cosine, set_learning_rate
from stages.train.step import Stepper

_LOOK_EVERY = 16
"""Steps between two looks at the loss on a GPU: each look waits for all that was queued."""


def train(
    stepper: Stepper,
    source: Source,
    *,
    learning_rate: float,
    start: int = 0,
    after_look: Callable[[CurvePoint], None],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train in place from step ``start`` to ``recipe.steps``.

    Parameters
    ----------
    stepper : Stepper
        Network and optimiser as they were before step ``start``.
    source : Source
        The batches.
    learning_rate : float
        Peak of the schedule.
    start : int
        Steps that are done already.
    after_look : callable
        Called with the newest step whenever the loss is looked at and finite: after every step on the CPU,
        every 16th and on the curve's steps on a GPU. Network and optimiser are between two steps then; it
        may save them, and it may raise to cancel.
    stop : callable
        Asked after every step; where it says True, the loss is looked at and the training is left there.

    Raises
    ------
    DivergedError
        The loss is NaN or infinite, with its step.
    """
    steps, cuda = source.recipe.steps, stepper.device.type == "cuda"
    stepper.network.train()
    unseen: list[Tensor] = []
    began = time.perf_counter()
    for step, (images, labels) in _numbered(source, start, pin=cuda):
        rate = cosine(step, steps, learning_rate)
        set_learning_rate(stepper.optimiser, rate)
        unseen.append(stepper(images, labels))
        leaving = stop()
        if cuda and len(unseen) < _LOOK_EVERY and not is_recorded(step, steps) and not leaving:
            continue
        losses = torch.stack(unseen)
        finite = losses.isfinite().tolist()
        if not all(finite):
            raise DivergedError(step - len(unseen) + 1 + finite.index(False))
        unseen.clear()
        speed = (step + 1 - start) * source.recipe.batch_size / (time.perf_counter() - began)
        after_look(CurvePoint(step, float(losses[-1]), rate, speed))
        if leaving or stop():
            return


def _numbered(source: Source, start: int, *, pin: bool) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Yield the steps with their batches."""
    steps = source.recipe.steps
    yield from zip(range(start, steps), batches(source, start, steps, pin=pin), strict=True)
