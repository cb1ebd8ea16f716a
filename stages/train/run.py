"""One training job from its first step, or from its checkpoint, to its score."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.errors import DivergedError, InputError
from stages.metrics import evaluate
from stages.records import CurvePoint, Progress, TrainResult
from stages.train.batches import Source
from stages.train.checkpoint import Progressed, discard_checkpoint, load_checkpoint, save_checkpoint
from stages.train.curve import CurveWriter, describe, is_recorded, is_scored
from stages.train.evaluate import Views, score
from stages.train.export import write_weights
from stages.train.interrupt import HeldSignals
from stages.train.job import TrainJob
from stages.train.loop import train
from stages.train.model import build_classifier
from stages.train.optimiser import build_optimiser
from stages.train.pixels import ImageStore
from stages.train.step import Stepper
from stages.vision.allocation import kept_memory
from stages.vision.devices import choose_device, numeric_precision
from stages.vision.networks import seeded


def run_job(
    job: TrainJob,
    folder: Path | None,
    *,
    image_folder: Path | None,
    checkpoint_minutes: float,
    keep_weights: bool,
    keep_checkpoint: bool,
    threads: int | None,
    progress: Progress | None,
) -> TrainResult:
    """Train and score; parameters, result and errors as :func:`stages.train.regimes.fine_tune`."""
    if keep_weights and folder is None:
        raise InputError("keep_weights needs a folder to write the weights to")
    device = choose_device(job.recipe.device)
    with numeric_precision(job.recipe.precision, device):
        pass
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    on_cpu = device.type == "cpu"
    with seeded(job.seed), _threads(threads), kept_memory() if on_cpu else contextlib.nullcontext():
        stepper = build_stepper(job, device)
        watch = _Watch(job, stepper, folder, checkpoint_minutes * 60, progress)
        scores = None
        with contextlib.closing(watch):
            try:
                with contextlib.closing(_images(job, image_folder)) as images:
                    watch.warnings = tuple(dict.fromkeys(images.warnings))
                    labels = job.training_labels()
                    source = Source(images, labels, job.preprocessing, job.recipe, job.seed)
                    _train(job, stepper, source, watch)
                scores = watch.finish()
            except DivergedError as problem:
                watch.steps = problem.step
                stepper.warnings.append(str(problem))
    if folder is not None:
        if keep_weights and scores is not None:
            write_weights(folder, stepper.network, job)
        if not keep_checkpoint:
            discard_checkpoint(folder)
    return _result(job, watch, scores)


def _images(job: TrainJob, folder: Path | None) -> ImageStore:
    """Return the images to train on."""
    return ImageStore(
        [job.dataset.splits[name].paths for name in job.fit_on],
        budget=job.recipe.image_memory,
        workers=job.recipe.num_workers or None,
        folder=folder,
        sha256=job.image_sha256,
    )


def build_stepper(job: TrainJob, device: torch.device) -> Stepper:
    """Build network and optimiser of a job as they are before its first step."""
    network = build_classifier(
        job.backbone,
        len(job.dataset.class_names),
        seed=job.seed,
        image_size=job.preprocessing.size,
        from_scratch=job.regime == "from_scratch",
        recipe=job.recipe,
        switches=job.switches,
    ).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = build_optimiser(
        network,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        momentum=job.recipe.momentum,
        decay_everything=job.recipe.decay_everything,
    )
    n_train = sum(len(job.dataset.splits[name]) for name in job.fit_on)
    return Stepper(
        network,
        optimiser,
        recipe=job.recipe,
        preprocessing=job.preprocessing,
        n_train=n_train,
        device=device,
    )


@dataclass
class _Watch:
    """What happens between steps: curve, checkpoints, progress."""

    job: TrainJob
    stepper: Stepper
    folder: Path | None
    period: float
    """Seconds between checkpoints."""
    progress: Progress | None
    steps: int = 0
    """Steps done."""
    warnings: tuple[str, ...] = ()
    """Of this attempt, beside those of the stepper, which a checkpoint hands on."""
    curve: CurveWriter = field(init=False)

    def __post_init__(self) -> None:
        self._fingerprint = self.job.fingerprint()
        self._views: Views | None = None
        self._started = time.monotonic()
        done = None
        if self.folder is not None:
            done = load_checkpoint(self.folder, self._fingerprint, self.stepper)
        self.steps = done.step if done else 0
        self.resumed_from = (*done.resumed_from, done.step) if done else ()
        self._seconds_before = done.seconds if done else 0.0
        self.curve = CurveWriter(
            self.folder, done.curve if done else (), tensorboard=self.job.recipe.tensorboard
        )
        known = [point.value for point in self.curve.points if point.value is not None]
        self._value = known[-1] if known else None
        self._saved = time.monotonic()

    def __call__(self, point: CurvePoint) -> None:
        """Record a step, save where it is time, tell the caller and let it cancel."""
        self.steps = point.step + 1
        total = self.job.recipe.steps
        if is_recorded(point.step, total):
            value = self._validated(point.step)
            self._value = self._value if value is None else value
            self.curve.add(replace(point, value=value))
        if time.monotonic() - self._saved >= self.period and self.steps < total:
            self.save()
        if self.progress is not None:
            try:
                batch, metric = self.job.recipe.batch_size, self.job.dataset.metric
                self.progress(self.steps, total, describe(point, total, batch, metric, self._value))
            except BaseException:
                self.save()
                raise

    def _validated(self, step: int) -> float | None:
        """Return the metric on validation where the recipe wants it after this step."""
        job, recipe = self.job, self.job.recipe
        if not (recipe.validation_curve and job.score_on == "validation"):
            return None
        labels = job.dataset.splits[job.score_on].labels
        taken = sum(point.value is not None for point in self.curve.points)
        if not is_scored(step, recipe.steps, recipe.batch_size, len(labels), taken):
            return None
        return float(evaluate(job.dataset.metric, labels, self._finite_scores(step + 1)))

    def finish(self) -> NDArray[np.float32]:
        """Score the trained network; where that is on validation, the curve ends with it."""
        job, scores = self.job, self._finite_scores(self.steps)
        if job.recipe.validation_curve and job.score_on == "validation" and self.curve.points:
            labels = job.dataset.splits[job.score_on].labels
            self.curve.complete(float(evaluate(job.dataset.metric, labels, scores)))
        return scores

    def _finite_scores(self, steps: int) -> NDArray[np.float32]:
        """Return the scores; an update may have spoiled the network after its loss was looked at."""
        scores = self.scores()
        if not np.isfinite(scores).all():
            raise DivergedError(steps)
        return scores

    def scores(self) -> NDArray[np.float32]:
        """Return the probabilities on the split to be scored."""
        job = self.job
        if self._views is None:
            paths = job.dataset.splits[job.score_on].paths
            self._views = Views(paths, job.preprocessing, job.recipe, job.image_sha256)
        return score(
            self.stepper.network,
            self._views,
            job.preprocessing,
            device=self.stepper.device,
            precision=job.recipe.precision,
            multi_label=job.dataset.multi_label,
        )

    @property
    def seconds(self) -> float:
        """Work so far in all attempts that led here."""
        return self._seconds_before + time.monotonic() - self._started

    def close(self) -> None:
        """Let curve and images go."""
        self.curve.close()
        if self._views is not None:
            self._views.close()

    def save(self) -> None:
        """Write a checkpoint where there is a folder for it."""
        if self.folder is not None:
            stepper = self.stepper
            done = Progressed(
                self.steps,
                self.curve.points,
                stepper.micro_batch_size,
                tuple(stepper.warnings),
                self.resumed_from,
                self.seconds,
            )
            save_checkpoint(self.folder, self._fingerprint, stepper, done)
        self._saved = time.monotonic()


def _train(job: TrainJob, stepper: Stepper, source: Source, watch: _Watch) -> None:
    """Do the steps that are not done; a process that is asked to end saves the last one first.

    A finished training is saved too: whatever breaks off its scoring costs not one step.

    A signal that somebody answers without ending the process leaves the rest of the steps to be done.
    """
    while watch.steps < job.recipe.steps:
        with HeldSignals() as held:
            train(
                stepper,
                source,
                learning_rate=job.learning_rate,
                start=watch.steps,
                after_look=watch,
                stop=held.asked,
            )
            if held.asked() or watch.steps == job.recipe.steps:
                watch.save()


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with a number of threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(job: TrainJob, watch: _Watch, scores: NDArray[Any] | None) -> TrainResult:
    """Put the record together; without scores the loss diverged."""
    labels = job.dataset.splits[job.score_on].labels
    n_train = sum(len(job.dataset.splits[name]) for name in job.fit_on)
    return TrainResult(
        regime=job.regime,
        metric=job.dataset.metric,
        value=None if scores is None else float(evaluate(job.dataset.metric, labels, scores)),
        status="diverged" if scores is None else "complete",
        scored_on=job.score_on,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        seed=job.seed,
        steps=watch.steps,
        scores=np.zeros((0, len(job.dataset.class_names)), np.float32) if scores is None else scores,
        curve=watch.curve.points,
        n_train=n_train,
        n_test=len(labels),
        seconds=watch.seconds,
        resumed_from=watch.resumed_from,
        warnings=(*job.warnings(), *_notes(watch.stepper), *watch.warnings, *watch.stepper.warnings),
    )


def _notes(stepper: Stepper) -> tuple[str, ...]:
    """Say whether the network was compiled, and how the batch norms saw the batch where it was cut up."""
    notes = ["the network was compiled (torch.compile)"] if stepper.compiled else []
    if stepper.micro_batches > 1:
        notes.append(
            f"batch-norm statistics over micro-batches of at most {stepper.micro_batch_size} images, "
            f"{stepper.micro_batches} a step, their momentum corrected"
        )
    return tuple(notes)
