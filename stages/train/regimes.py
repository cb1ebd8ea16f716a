"""The two regimes that train: from pretrained weights, and from random initialisation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.errors import DatasetError, DivergedError, InputError
from stages.metrics import evaluate
from stages.records import (
    Backbone,
    CurvePoint,
    Dataset,
    Preprocessing,
    Progress,
    Regime,
    Split,
    SplitName,
    TrainRecipe,
    TrainResult,
)
from stages.train.curve import CurveWriter
from stages.train.evaluate import read_views, score
from stages.train.loop import Source, train
from stages.train.model import Classifier, build_classifier
from stages.train.optimiser import batch_norm_momentum, build_optimiser, set_batch_norm_momentum
from stages.train.pixels import ImageStore
from stages.vision.devices import choose_device, numeric_precision


def fine_tune(
    backbone: Backbone,
    dataset: Dataset,
    recipe: TrainRecipe,
    *,
    learning_rate: float,
    weight_decay: float,
    seed: int = 0,
    fit_on: Sequence[SplitName] = ("train",),
    score_on: SplitName = "validation",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train all of a backbone and a new classifier on a data set (protocol, "Fine-tuning").

    Nesterov SGD, cosine to zero over ``recipe.steps``, ``weight_decay`` divided by ``learning_rate``, on
    convolution and linear weights only; batch-norm momentum min(10/s, 0.1); random resized crop and flip; no
    dropout. On the CPU equal arguments give equal bits for one torch version and thread count.

    Parameters
    ----------
    backbone : Backbone
        With the weights to start from.
    dataset : Dataset
        Must hold the splits asked for.
    recipe : TrainRecipe
        Everything but the grid point.
    learning_rate : float
        Peak of the schedule.
    weight_decay : float
        The grid's c >= 0.
    seed : int
        Of the classifier, of the order of images and of the crops.
    fit_on : sequence of {"train", "validation", "test"}
        The splits to train on, in this order.
    score_on : {"train", "validation", "test"}
        The split to score, once, at the end.
    folder : Path or None
        Where ``curve.jsonl`` is written; created if absent.
    progress : callable or None
        Called with (steps done, steps, note) after every step; it may raise to cancel.

    Returns
    -------
    TrainResult
        ``status`` is "diverged" where the loss stopped being finite: a result, not a failure.

    Raises
    ------
    DatasetError
        A split is missing or empty.
    BadImageError
        An image cannot be decoded.
    BackboneError, WeightsError
        The network cannot be built.
    InputError
        A number is out of range, or the device is not there.

    Examples
    --------
    >>> from stages.backbones import resolve
    >>> def first_try(dataset: Dataset) -> TrainResult:
    ...     backbone = resolve("resnet50.a1_in1k")
    ...     recipe = TrainRecipe(steps=500, batch_size=64)
    ...     return fine_tune(backbone, dataset, recipe, learning_rate=0.01, weight_decay=1e-4, score_on="test")
    """
    job = _Job(
        "fine_tune", backbone, dataset, recipe, learning_rate, weight_decay, seed, tuple(fit_on), score_on
    )
    return _run(job, folder, progress)


def train_from_scratch(
    backbone: Backbone,
    dataset: Dataset,
    recipe: TrainRecipe,
    *,
    learning_rate: float,
    weight_decay: float,
    seed: int = 0,
    fit_on: Sequence[SplitName] = ("train",),
    score_on: SplitName = "validation",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a backbone from random initialisation (protocol, "From scratch").

    The backbone's own weights are not read; ``seed`` draws the initialisation too. Otherwise as
    :func:`fine_tune`, with the same parameters, result and errors.

    Examples
    --------
    >>> from stages.backbones import resolve
    >>> def first_try(dataset: Dataset) -> TrainResult:
    ...     backbone = resolve("resnet50.a1_in1k")
    ...     recipe = TrainRecipe(steps=2000, batch_size=64)
    ...     return train_from_scratch(backbone, dataset, recipe, learning_rate=0.1, weight_decay=1e-3)
    """
    job = _Job(
        "from_scratch", backbone, dataset, recipe, learning_rate, weight_decay, seed, tuple(fit_on), score_on
    )
    return _run(job, folder, progress)


@dataclass(frozen=True)
class _Job:
    """One grid point of one regime, as asked for."""

    regime: Regime
    backbone: Backbone
    dataset: Dataset
    recipe: TrainRecipe
    learning_rate: float
    weight_decay: float
    seed: int
    fit_on: tuple[SplitName, ...]
    score_on: SplitName
    preprocessing: Preprocessing = field(init=False)

    def __post_init__(self) -> None:
        facts, recipe = self.backbone.preprocessing, self.recipe
        object.__setattr__(self, "preprocessing", replace(facts, size=recipe.image_size or facts.size))
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise InputError(
                f"learning_rate {self.learning_rate} must be positive, weight_decay {self.weight_decay} not negative"
            )
        if min(recipe.steps, recipe.batch_size, self.preprocessing.size) < 1:
            raise InputError(
                f"steps {recipe.steps}, batch_size {recipe.batch_size} and image_size must be positive"
            )
        for name in (*self.fit_on, self.score_on):
            if name not in self.dataset.splits or not len(self.dataset.splits[name]):
                raise DatasetError(f"{self.dataset.name} has no images in the split {name!r}: choose another")

    def training_rows(self) -> tuple[tuple[Path, ...], NDArray[np.generic]]:
        """Return the files and labels trained on."""
        splits: list[Split] = [self.dataset.splits[name] for name in self.fit_on]
        return sum((s.paths for s in splits), ()), np.concatenate([s.labels for s in splits])


def _run(job: _Job, folder: Path | None, progress: Progress | None) -> TrainResult:
    """Run a job from the first step to its score."""
    started = time.perf_counter()
    device = choose_device(job.recipe.device)
    with numeric_precision(job.recipe.precision, device):
        pass
    paths, labels = job.training_rows()
    network = build_classifier(
        job.backbone,
        len(job.dataset.class_names),
        seed=job.seed,
        image_size=job.preprocessing.size,
        from_scratch=job.regime == "from_scratch",
    ).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    curve = CurveWriter(folder, job.recipe.steps)
    images = ImageStore(paths, budget=job.recipe.image_memory, workers=job.recipe.num_workers or None)
    try:
        _train(
            job,
            network,
            Source(images, labels, job.preprocessing, job.recipe, job.seed),
            device,
            curve,
            progress,
        )
        scores = _score(job, network, device)
    except DivergedError as problem:
        return _result(job, curve.points, started, len(labels), None, (str(problem),))
    finally:
        images.close()
        curve.close()
    return _result(job, curve.points, started, len(labels), scores, ())


def _train(
    job: _Job,
    network: Classifier,
    source: Source,
    device: torch.device,
    curve: CurveWriter,
    progress: Progress | None,
) -> None:
    """Set up the optimiser and train."""
    recipe = job.recipe
    set_batch_norm_momentum(network, batch_norm_momentum(len(source.images), recipe.batch_size))
    optimiser = build_optimiser(
        network, learning_rate=job.learning_rate, weight_decay=job.weight_decay, momentum=recipe.momentum
    )

    def after_step(point: CurvePoint) -> None:
        curve.add(point)
        if progress is not None:
            progress(
                point.step + 1, recipe.steps, f"loss {point.loss:.4g}, {point.images_per_second:.0f} images/s"
            )

    train(network, optimiser, source, learning_rate=job.learning_rate, device=device, after_step=after_step)


def _score(job: _Job, network: Classifier, device: torch.device) -> NDArray[np.float32]:
    """Return the probabilities on the split to be scored."""
    views = read_views(job.dataset.splits[job.score_on].paths, job.preprocessing, job.recipe)
    return score(
        network,
        views,
        job.preprocessing,
        device=device,
        precision=job.recipe.precision,
        multi_label=job.dataset.multi_label,
    )


def _result(
    job: _Job,
    curve: tuple[CurvePoint, ...],
    started: float,
    n_train: int,
    scores: NDArray[np.float32] | None,
    warnings: tuple[str, ...],
) -> TrainResult:
    """Put the record together; without scores the loss diverged."""
    labels = job.dataset.splits[job.score_on].labels
    return TrainResult(
        regime=job.regime,
        metric=job.dataset.metric,
        value=None if scores is None else float(evaluate(job.dataset.metric, labels, scores)),
        status="diverged" if scores is None else "complete",
        scored_on=job.score_on,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        seed=job.seed,
        steps=job.recipe.steps if scores is not None else (curve[-1].step + 1 if curve else 0),
        scores=np.zeros((0, len(job.dataset.class_names)), np.float32) if scores is None else scores,
        curve=curve,
        n_train=n_train,
        n_test=len(labels),
        seconds=time.perf_counter() - started,
        warnings=warnings,
    )
