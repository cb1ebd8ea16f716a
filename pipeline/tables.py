"""The tables of a study file: their keys, their defaults, what values they take.

`pipeline/studies/reference.toml` repeats every key with its default, and a test holds the two against each
other.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from stages.names import UNSHOWN
from stages.records import ImageErrorPolicy, Interpolation, Metric, SplitName

Fraction = Annotated[float, Field(gt=0, lt=1)]
FromZero = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Triple = tuple[float, float, float]
ONE_LINE = rf"^[^{UNSHOWN}]*$"
"""What becomes part of a job's name holds no control characters, nor any that turn a line around."""


class Table(BaseModel):
    """A table of the study file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def _known_executor(value: str) -> str:
    """Refuse what is no executor."""
    if not re.fullmatch(r"local|slurm|dask:\S+", value):
        raise ValueError(f"{value!r} is none of local, dask:ADDRESS (dask:tcp://HOST:8786), slurm")
    return value


def _known_device(value: str) -> str:
    """Refuse what is the name of no device."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value):
        raise ValueError(f'{value!r} is no device; say "auto", "cpu", "cuda" or "cuda:1"')
    return value


def _as_text(value: object) -> object:
    """Let a number of minutes stand for Slurm's text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class StudyTable(Table):
    """``[study]``."""

    name: str = Field(min_length=1, pattern=rf"^[^./\\{UNSHOWN}][^/\\{UNSHOWN}]*$")
    output: str | None = None

    @property
    def output_folder(self) -> str:
        """Where results go, as written: ``output``, else runs/NAME."""
        return self.output or f"runs/{self.name}"


class BackboneTable(Table):
    """``[[backbone]]``."""

    name: str = Field(min_length=1)
    weights: str = "pretrained"
    variant: str = Field(default="", pattern=ONE_LINE)
    imagenet_top1: Fraction | None = None
    seed: int = Field(default=0, ge=0)
    size: Positive | None = None
    interpolation: Interpolation | None = None
    mean: Triple | None = None
    std: Triple | None = None
    pooling: str | None = None

    @property
    def label(self) -> str:
        """What tells this backbone from the study's others."""
        return f"{self.name}@{self.variant}" if self.variant else self.name


class DatasetTable(Table):
    """``[[dataset]]``."""

    name: str = Field(min_length=1, pattern=ONE_LINE)
    source: str | None = None
    metric: Metric | None = None
    multi_label: bool | None = None
    test_fraction: Fraction = 0.2
    split_seed: int = Field(default=0, ge=0)
    root: str | None = None
    allow_size_mismatch: bool = False
    manifest: str | None = None
    exclude_duplicates: bool = False
    image_column: str | None = None
    label_column: str | None = None


class ExtractTable(Table):
    """``[extract]``: stage one."""

    size: Positive | None = None
    crop: Literal["whole", "center"] = "whole"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    on_bad_image: ImageErrorPolicy = "error"
    batch_size: Positive | Literal["auto"] = 64
    num_workers: int = Field(default=0, ge=0)
    compile: Literal["auto", "always", "never"] = "auto"
    device: str = "auto"


class LambdaGrid(Table):
    """``lambdas = { min, max, count }``: log-spaced strengths, on the sum of losses."""

    min: float = Field(default=1e-6, gt=0)
    max: float = Field(default=1e5, gt=0)
    count: int = Field(default=45, ge=1, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> LambdaGrid:
        if self.max < self.min or (self.count == 1 and self.max != self.min):
            raise ValueError("needs min < max, or count = 1 with min = max")
        return self

    def values(self) -> tuple[float, ...]:
        """Return the strengths, ascending."""
        exponents = np.linspace(np.log10(self.min), np.log10(self.max), self.count)
        return tuple(float(v) for v in 10.0**exponents)


class ProbeTable(Table):
    """``[probe]``: stage two."""

    enabled: bool = True
    selection: Literal["cross_validation", "validation"] = "cross_validation"
    folds: int = Field(default=5, ge=2)
    validation_fraction: Fraction = 0.2
    seed: int = Field(default=0, ge=0)
    lambdas: LambdaGrid = LambdaGrid()
    tolerance: float = Field(default=1e-3, gt=0, lt=1)
    memory: int | None = Field(default=None, gt=0)


def _one_or_many(value: object) -> object:
    """Let a single number stand for a list of one."""
    return [value] if isinstance(value, int | float) else value


Grid = Annotated[tuple[float, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Device = Annotated[str, AfterValidator(_known_device)]
Budget = Literal["tiny", "quick", "paper"]


_NUMBERS = (
    "seeds", "validation_fraction", "steps", "batch_size", "micro_batch_size", "learning_rates", "weight_decays",
    "jobs_per_device", "halving_factor", "momentum", "batch_norm_momentum", "dropout", "label_smoothing",
    "classifier_std", "image_size", "crop_scale", "crop_ratio", "num_workers", "image_memory", "checkpoint_minutes",
)  # fmt: skip
"""Of a training table; neither true nor "0.1" is one of them."""


class TrainTable(Table):
    """``[fine_tune]`` and ``[from_scratch]``: a budget, and any field of it set beside it.

    A field left out takes the budget's value (`pipeline.budgets`).
    """

    budget: Budget = "quick"
    seeds: Seeds = (0,)
    validation_fraction: Fraction = 0.2
    steps: Positive | None = None
    batch_size: Positive | None = None
    micro_batch_size: Positive | None = None
    learning_rates: Grid | None = None
    weight_decays: Grid | None = None
    jobs_per_device: Positive = 1
    search: Literal["grid", "halving"] = "grid"
    halving_factor: int = Field(default=3, ge=2)
    momentum: FromZero = 0.9
    batch_norm_momentum: float | None = Field(default=None, gt=0, le=1)
    decay_everything: bool = False
    dropout: FromZero = 0.0
    label_smoothing: FromZero = 0.0
    classifier_std: float = Field(default=0.01, ge=0, le=1000)
    image_size: Positive | None = None
    evaluation_crop: Literal["whole", "central_87.5", "simclr"] = "whole"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    horizontal_flip: bool = True
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: Literal["auto", "always", "never"] = "auto"
    device: Device = "auto"
    num_workers: int = Field(default=0, ge=0)
    image_memory: int = Field(default=2 << 30, ge=0)
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    keep_weights: bool = False
    validation_curve: bool = True
    tensorboard: bool = False

    @field_validator(*_NUMBERS, mode="before")
    @classmethod
    def _numbers_alone(cls, value: object) -> object:
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, bool | str):
                shown = f'"{item}"' if isinstance(item, str) else str(item).lower()
                raise ValueError(f"{shown} is no number; write it without quotes, as in 0.1")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> TrainTable:
        for rate in self.learning_rates or ():
            if not rate > 0:
                raise ValueError(f"learning_rates holds {rate:g}; every rate must be above 0")
        for decay in self.weight_decays or ():
            if not decay >= 0:
                raise ValueError(f"weight_decays holds {decay:g}; every decay must be 0 or above")
        if self.learning_rates and not max(self.weight_decays or (1.0,)) / min(self.learning_rates) < 1e38:
            raise ValueError(
                f"learning_rates holds {min(self.learning_rates):g}; weight decay is divided by it, and that gives "
                "no finite number: take a larger one"
            )
        if self.device == "cpu" and self.precision == "float16":
            raise ValueError('precision "float16" needs a GPU: use "float32" or "bfloat16" on the CPU')
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} names one twice; every seed is one training")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers, 0 < low <= high; found [{low:g}, {high:g}]")
        if self.crop_scale[1] > 1:
            raise ValueError(
                f"crop_scale ends at {self.crop_scale[1]:g}; no crop keeps more than 1, the image"
            )
        return self


class ExecutionTable(Table):
    """``[execution]``: where jobs run."""

    executor: Annotated[str, AfterValidator(_known_executor)] = "local"
    retries: int = Field(default=2, ge=0)


def _amount(value: str) -> str:
    """Refuse what is no amount of memory."""
    if not re.fullmatch(r"\d+[KMGT]?B?", value):
        raise ValueError(f"{value!r} is no amount of memory: write 16G, 64000M or so")
    return value


class SlurmTable(Table):
    """``[slurm]``: what a job asks Slurm for."""

    partition: str | None = None
    time: Annotated[str, BeforeValidator(_as_text)] = "1:00:00"
    cpus: Positive = 4
    memory: Annotated[str, AfterValidator(_amount)] | None = None
    side_by_side: Positive = 100
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _readable(self) -> SlurmTable:
        slurm_minutes(self.time)
        return self

    @property
    def minutes(self) -> int:
        """``time`` in minutes, rounded up."""
        return slurm_minutes(self.time)


def slurm_minutes(text: str) -> int:
    """Read a time as Slurm does and round it up to minutes.

    Examples
    --------
    >>> [slurm_minutes(text) for text in ("90", "1:30:00", "2-0", "0:10", "1-12:30")]
    [90, 90, 2880, 1, 2190]
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise ValueError(
            f"time is {text!r}; write it as Slurm does: minutes, hours:minutes:seconds, days-hours"
        )
    days, first, second, third = (int(part) if part else 0 for part in found.groups())
    if found[1] is not None or found[4] is not None:
        seconds = days * 86400 + first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    if not seconds:
        raise ValueError("time is 0; a job needs some")
    return -(-seconds // 60)


def _beginning_of_key(text: str) -> str:
    """Refuse what is no key, nor enough of one."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", text):
        raise ValueError(
            f"{text!r} is not the first 8 to 64 digits (0-9, a-f) of a key; `penultimate cache list` shows keys"
        )
    return text


class PinTable(Table):
    """``[[pin]]``: which cached entry stands for one split of a data set through one backbone.

    The same table makes up STUDY.lock, there with the whole key and the digest of the values.
    """

    backbone: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    split: SplitName
    fingerprint: Annotated[str, AfterValidator(_beginning_of_key)]
    content_digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @property
    def place(self) -> tuple[str, str, SplitName]:
        """What the pin is for: backbone (with its variant), data set, split."""
        return self.backbone, self.dataset, self.split


class ReportTable(Table):
    """``[report]``: what is joined, and the page."""

    limitations: tuple[str, ...] = ()
    missing: Literal["complete_backbones", "additive_model"] = "complete_backbones"
    scores: tuple[str, ...] = ()
    state_of_the_art: str | None = None
