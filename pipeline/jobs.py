"""The units of work: what each needs, what names it, and what makes its result stale.

A job is pure data and travels to worker processes as it is. Its ``spec`` is the part of it that decides
the result; a result is current while its spec is the job's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cache import sha256_of
from stages.records import (
    Backbone,
    Dataset,
    ImageErrorPolicy,
    Metric,
    Regime,
    SelectionRow,
    SourceSwitches,
    Split,
    SplitName,
    TrainRecipe,
)

Stage = Literal["extract", "probe", "fine-tune", "scratch", "join"]
STAGES: tuple[Stage, ...] = ("extract", "probe", "fine-tune", "scratch", "join")
STAGE_OF_REGIME: Mapping[Regime, Stage] = {
    "linear_probe": "probe",
    "fine_tune": "fine-tune",
    "from_scratch": "scratch",
}

State = Literal["done", "missing", "stale", "waiting"]


@dataclass(frozen=True)
class ExtractJob:
    """One split of one data set through one backbone."""

    name: str
    backbone: Backbone
    dataset: str
    split: Split
    image_sha256: tuple[str, ...]
    """Of the file behind each row."""
    class_names: tuple[str, ...]
    multi_label: bool
    precision: str
    on_bad_image: ImageErrorPolicy
    batch_size: int | None
    """Rows a batch; None = found by trial once the network is built."""
    num_workers: int
    device: str
    key: str | None
    """Digest of the cache key; None while the weights are not on this machine."""
    twins: tuple[str, ...] = ()
    """Keys of cached entries that differ in labels, class names or groups alone: their features are these."""
    content_digest: str | None = None
    """The values that the study pins; None where it pins none."""
    compile: Literal["auto", "always", "never"] = "auto"
    stage: Stage = "extract"


@dataclass(frozen=True)
class KnownSelection:
    """What the last result of a probe says of lambdas that are asked for again."""

    rows: tuple[SelectionRow, ...]
    content_digests: Mapping[SplitName, str]
    """Of the features that it was made from: with others under the same keys nothing is reused."""


@dataclass(frozen=True)
class ProbeRows:
    """Which rows of the cached splits a probe is fitted to and chosen on, where it is not all of them."""

    train: tuple[str, ...]
    """Ids, of the training or the validation split."""
    validation: tuple[str, ...]


class Specified:
    """A job whose result is known by all that decides it."""

    spec: Mapping[str, Any]

    @cached_property
    def spec_digest(self) -> str:
        """SHA-256 of the spec, as a record of its result has it."""
        return sha256_of(self.spec, parsed=True)


@dataclass(frozen=True)
class ProbeJob(Specified):
    """Linear probe of one backbone on one data set, from cached features alone."""

    name: str
    backbone: str
    """Label."""
    dataset: str
    metric: Metric | None
    """None = the default of the labels' kind."""
    entries: Mapping[SplitName, str]
    """Key of the cached entry of each split."""
    settings: Mapping[str, Any]
    """Keyword arguments of `stages.probe.fit_probe`."""
    spec: Mapping[str, Any]
    columns: Mapping[str, Any]
    """What the job knows of its row of scores.csv."""
    content_digests: Mapping[SplitName, str] = field(default_factory=dict)
    """The values that the study pins, of the splits that it pins."""
    memory: int | None = None
    """Bytes that copies of the features may take; None = as much as they need."""
    known: KnownSelection | None = None
    """Of the last result, where that differs in the grid of lambdas alone."""
    rows: ProbeRows | None = None
    """None = train and validation as they are."""
    stage: Stage = "probe"


@dataclass(frozen=True)
class TrainJob(Specified):
    """One grid point, or the final training at the point chosen."""

    name: str
    regime: Regime
    backbone: Backbone
    dataset: Dataset
    recipe: TrainRecipe
    learning_rate: float
    weight_decay: float
    seed: int
    fit_on: tuple[SplitName, ...]
    score_on: SplitName
    spec: Mapping[str, Any]
    columns: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    """What the choice of the grid point wants a reader to know."""
    checkpoint_minutes: float = 10.0
    keep_weights: bool = False
    jobs_per_device: int = 1
    """How many trainings share one GPU."""
    switches: SourceSwitches | None = None
    """Of training on a source task; None = a study's own training."""
    image_sha256: Mapping[Path, str] = field(default_factory=dict, repr=False)
    """Of the files that the spec was made from: what changes meanwhile is not trained on."""

    @property
    def stage(self) -> Stage:
        """The stage that runs it."""
        return STAGE_OF_REGIME[self.regime]


@dataclass(frozen=True)
class Part:
    """What a job is for beside the study's own scores: one point of one of the other experiments."""

    experiment: Literal["few_examples", "convergence", "pretrain"]
    per_class: int | None = None
    """Training images of every class."""
    repeat: int | None = None
    """Which of the subsets drawn."""
    steps: int | None = None
    """Length of the schedule."""


Job = ExtractJob | ProbeJob | TrainJob
ResultJob = ProbeJob | TrainJob


@dataclass(frozen=True)
class Planned:
    """A job and whether it has to be run."""

    name: str
    stage: Stage
    state: State
    why: str
    """One line; for ``done`` where the result lies."""
    job: Job | None = field(default=None, repr=False)
    """None while the job waits for what decides it (features not yet extracted, grid not yet run)."""
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The row of scores.csv that the job will fill; empty for jobs that fill none."""
    part: Part | None = field(default=None, repr=False)
    """Of another experiment: its row is not of scores.csv but of that experiment's own table."""

    @property
    def spec_digest(self) -> str | None:
        """What its result must be made from; None where that is not known."""
        return self.job.spec_digest if isinstance(self.job, Specified) else None
