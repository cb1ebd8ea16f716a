"""The two regimes that train: from pretrained weights, and from random initialisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.records import (
    NO_SWITCHES,
    Backbone,
    Dataset,
    Progress,
    SourceSwitches,
    SplitName,
    TrainRecipe,
    TrainResult,
)
from stages.train.job import TrainJob
from stages.train.run import run_job


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
    image_sha256: Mapping[Path, str] | None = None,
    folder: Path | None = None,
    image_folder: Path | None = None,
    checkpoint_minutes: float = 10.0,
    keep_weights: bool = False,
    keep_checkpoint: bool = False,
    threads: int | None = None,
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
    image_sha256 : mapping of Path to str, optional
        SHA-256 of image files, as far as it is known: a file that has other bytes by now is refused.
    folder : Path or None
        Where ``curve.jsonl`` and checkpoints are written; created if absent. A checkpoint of this very job
        that lies there is resumed, on the CPU to the same bits; a finished job deletes its checkpoint.
    image_folder : Path or None
        Where decoded images lie, memory-mapped, for all jobs that use it; None = in this process's memory.
    checkpoint_minutes : float
        Time between checkpoints; one more is written when ``progress`` raises, and when SIGINT or SIGTERM
        arrives, which are answered after the step under way.
    keep_weights : bool
        Whether to write ``weights.safetensors`` into ``folder``: timm loads it into
        ``create_model(NAME, num_classes=K)``.
    keep_checkpoint : bool
        Whether to leave the checkpoint where it is, for a caller who has to put the result away first:
        `discard_checkpoint` deletes it.
    threads : int or None
        That torch computes with on the CPU, where another number gives other bits; None = as many as now.
    progress : callable or None
        Called with (steps done, steps, note) after every step (on a GPU every 16th); it may raise to
        cancel, and what it raises comes through after the checkpoint is written.

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
    UnreadFileError
        An image cannot be read, or is not what ``image_sha256`` says.
    BackboneError, WeightsError
        The network cannot be built.
    InputError
        A number is out of range, the device is not there, or a checkpoint in ``folder`` is damaged or
        of another job.

    Examples
    --------
    >>> from stages.backbones import resolve
    >>> def first_try(dataset: Dataset) -> TrainResult:
    ...     backbone = resolve("resnet50.a1_in1k")
    ...     recipe = TrainRecipe(steps=500, batch_size=64)
    ...     return fine_tune(backbone, dataset, recipe, learning_rate=0.01, weight_decay=1e-4)
    """
    job = TrainJob(
        "fine_tune",
        backbone,
        dataset,
        recipe,
        learning_rate,
        weight_decay,
        seed,
        tuple(fit_on),
        score_on,
        image_sha256=image_sha256 or {},
    )
    return run_job(
        job,
        folder,
        image_folder=image_folder,
        checkpoint_minutes=checkpoint_minutes,
        keep_weights=keep_weights,
        keep_checkpoint=keep_checkpoint,
        threads=threads,
        progress=progress,
    )


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
    image_sha256: Mapping[Path, str] | None = None,
    folder: Path | None = None,
    image_folder: Path | None = None,
    checkpoint_minutes: float = 10.0,
    keep_weights: bool = False,
    keep_checkpoint: bool = False,
    threads: int | None = None,
    switches: SourceSwitches = NO_SWITCHES,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a backbone from random initialisation (protocol, "From scratch").

    The backbone's own weights are not read; ``seed`` draws the initialisation too. Otherwise as
    :func:`fine_tune`, with the same parameters, result and errors. ``switches`` are those of training on a source
    task: batch-norm scale and auxiliary heads, which are no part of the weights that are kept.

    Examples
    --------
    >>> from stages.backbones import resolve
    >>> def first_try(dataset: Dataset) -> TrainResult:
    ...     backbone = resolve("resnet50.a1_in1k")
    ...     recipe = TrainRecipe(steps=2000, batch_size=64)
    ...     return train_from_scratch(backbone, dataset, recipe, learning_rate=0.1, weight_decay=1e-3)
    """
    job = TrainJob(
        "from_scratch",
        backbone,
        dataset,
        recipe,
        learning_rate,
        weight_decay,
        seed,
        tuple(fit_on),
        score_on,
        switches,
        image_sha256 or {},
    )
    return run_job(
        job,
        folder,
        image_folder=image_folder,
        checkpoint_minutes=checkpoint_minutes,
        keep_weights=keep_weights,
        keep_checkpoint=keep_checkpoint,
        threads=threads,
        progress=progress,
    )
