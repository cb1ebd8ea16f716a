"""The study file: its keys, their defaults, and what is wrong with one.

The models below are the study file's one definition: `pipeline/studies/reference.toml` repeats every key
with its default, and a test holds the two against each other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import StudyError
from stages.records import ImageErrorPolicy, Interpolation, Metric

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Triple = tuple[float, float, float]
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""What becomes part of a job's name holds no control characters."""


class Table(BaseModel):
    """A table of the study file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class StudyTable(Table):
    """``[study]``."""

    name: str = Field(min_length=1, pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$")
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


class ExtractTable(Table):
    """``[extract]``: stage one."""

    size: Positive | None = None
    crop: Literal["whole", "center"] = "whole"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    on_bad_image: ImageErrorPolicy = "error"
    batch_size: Positive = 64
    num_workers: int = Field(default=2, ge=0)
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


def _one_or_many(value: object) -> object:
    """Let a single number stand for a list of one."""
    return [value] if isinstance(value, int | float) else value


Grid = Annotated[tuple[float, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Budget = Literal["tiny", "quick", "paper"]


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
    image_size: Positive | None = None
    evaluation_crop: Literal["whole", "central_87.5", "simclr"] = "whole"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    horizontal_flip: bool = True
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    num_workers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sensible(self) -> TrainTable:
        for rate in self.learning_rates or ():
            if not rate > 0:
                raise ValueError(f"learning_rates holds {rate:g}; every rate must be above 0")
        for decay in self.weight_decays or ():
            if not decay >= 0:
                raise ValueError(f"weight_decays holds {decay:g}; every decay must be 0 or above")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} names one twice; every seed is one training")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers, 0 < low <= high; found [{low:g}, {high:g}]")
        return self


class ReportTable(Table):
    """``[report]``: the page."""

    limitations: tuple[str, ...] = ()


FOLDER = "<folder of the study file>"
"""Under which `load_study` hands its own finding to `Study`."""


def _short_forms(value: object) -> object:
    """Let a list of names stand for a list of tables."""
    if isinstance(value, list | tuple):
        return [{"name": item} if isinstance(item, str) else item for item in value]
    return value


class Study(Table):
    """A study: which backbones, which data sets, which stages.

    Relative paths in it are relative to ``folder``, where the study file lies.
    """

    study: StudyTable
    backbone: Annotated[tuple[BackboneTable, ...], BeforeValidator(_short_forms), Field(min_length=1)]
    dataset: Annotated[tuple[DatasetTable, ...], BeforeValidator(_short_forms), Field(min_length=1)]
    extract: ExtractTable = ExtractTable()
    probe: ProbeTable = ProbeTable()
    fine_tune: TrainTable | None = None
    from_scratch: TrainTable | None = None
    report: ReportTable = ReportTable()
    # The alias is no key that TOML people would write: a study file cannot set the folder.
    folder: Path = Field(default=Path(), exclude=True, validation_alias=FOLDER)

    @model_validator(mode="before")
    @classmethod
    def _plural_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = dict(value)
            for plural, singular in (("backbones", "backbone"), ("datasets", "dataset")):
                if plural in value and singular in value:
                    raise ValueError(f"{plural} and [[{singular}]] are two ways to say one thing; keep one")
                if plural in value:
                    value[singular] = value.pop(plural)
        return value

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def output(self) -> Path:
        """Folder of results, scores and report."""
        return (self.folder / self.study.output_folder).resolve()

    def training(self, regime: str) -> TrainTable | None:
        """Return the table of a training regime, None where it is not run."""
        return self.fine_tune if regime == "fine_tune" else self.from_scratch


def load_study(path: Path | str) -> Study:
    """Read a study file.

    Parameters
    ----------
    path : path
        A TOML file; `pipeline/studies/reference.toml` shows every key.

    Returns
    -------
    Study
        Frozen; relative paths are relative to the file's folder.

    Raises
    ------
    StudyError
        With one line per mistake: no such file, not TOML, unknown keys (with the nearest known one),
        wrong types and values, unknown backbones, names used twice.

    Examples
    --------
    >>> from pipeline.config import load_study
    >>> file = getfixture("tmp_path") / "study.toml"
    >>> _ = file.write_text('''
    ... backbones = ["resnet50.tv_in1k"]
    ... datasets = ["digits"]
    ... [study]
    ... name = "first"
    ... ''')
    >>> study = load_study(file)
    >>> study.name, study.backbone[0].name, study.probe.lambdas.count
    ('first', 'resnet50.tv_in1k', 45)
    """
    from pipeline.mistakes import explain, name_mistakes, unknown_backbones

    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "a folder of images? `penultimate init FOLDER` writes a first study"
        raise StudyError(f"{path}: no such study file; {hint}") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not TOML: {error}") from error
    try:
        study = Study.model_validate({**raw, FOLDER: path.parent.resolve()})
    except ValidationError as error:
        lines = [*explain(error), *unknown_backbones(raw)]
        raise StudyError(f"{path}: {line}" for line in lines) from None
    mistakes = list(name_mistakes(study))
    if mistakes:
        raise StudyError(f"{path}: {mistake}" for mistake in mistakes)
    return study
