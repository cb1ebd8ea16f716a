"""The tables of the paper's other experiments; a study that lacks one does not run that experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.tables import ONE_LINE, Fraction, FromZero, Positive, Table


def _one_or_many(value: object) -> object:
    """Let a single number stand for a list of one."""
    if isinstance(value, bool) or (isinstance(value, list) and any(isinstance(v, bool) for v in value)):
        raise ValueError("true and false are no numbers")
    return [value] if isinstance(value, int) else value


Numbers = Annotated[tuple[Positive, ...], BeforeValidator(_one_or_many), Field(min_length=1)]


def _refuse_twice(name: str, values: tuple[object, ...] | None) -> None:
    """Raise for a list that names one thing twice."""
    if values is not None and len(set(values)) < len(values):
        raise ValueError(f"{name} {list(values)} names one twice")


class FewExamplesTable(Table):
    """``[few_examples]``: every regime of the study again on a few images a class (protocol, "Few examples")."""

    datasets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    per_class: Numbers | None = None
    largest: Positive | None = None
    repeats: Positive = 3
    seed: int = Field(default=0, ge=0)
    draw: Literal["nested", "independent"] = "nested"
    validation: Literal["full", "proportional"] = "full"
    validation_fraction: Fraction = 0.2

    @model_validator(mode="after")
    def _sensible(self) -> FewExamplesTable:
        _refuse_twice("datasets", self.datasets)
        _refuse_twice("per_class", self.per_class)
        if self.per_class is not None and self.largest is not None and max(self.per_class) > self.largest:
            raise ValueError(f"per_class goes up to {max(self.per_class)}, beyond largest = {self.largest}")
        return self


class SettingTable(Table):
    """``[[pretrain.setting]]``: one way to train on the source task."""

    variant: str = Field(min_length=1, pattern=ONE_LINE)
    batch_norm_scale: bool = True
    label_smoothing: FromZero = 0.0
    dropout: FromZero = 0.0
    auxiliary_head: bool = False


PAPER_SETTINGS = (
    SettingTable(
        variant="without-scale", batch_norm_scale=False, label_smoothing=0.1, dropout=0.2, auxiliary_head=True
    ),
    SettingTable(variant="with-scale", label_smoothing=0.1, dropout=0.2, auxiliary_head=True),
    SettingTable(variant="no-smoothing", dropout=0.2, auxiliary_head=True),
    SettingTable(variant="no-dropout", auxiliary_head=True),
    SettingTable(variant="no-auxiliary"),
)
"""The five of the paper in its order (protocol, "Regularisation"); how much smoothing and dropout is TF-Slim's."""


class PretrainTable(Table):
    """``[pretrain]``: training on a source task under several settings, for `penultimate pretrain`."""

    source: str = Field(min_length=1)
    setting: tuple[SettingTable, ...] = PAPER_SETTINGS
    seeds: Annotated[tuple[int, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = (0,)
    steps: Positive = 1000
    batch_size: Positive = 64
    micro_batch_size: Positive | None = None
    learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    auxiliary_weight: float = Field(default=0.4, ge=0)
    image_size: Positive | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    num_workers: int = Field(default=0, ge=0)
    image_memory: int = Field(default=2 << 30, ge=0)
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    jobs_per_device: Positive = 1

    @model_validator(mode="after")
    def _sensible(self) -> PretrainTable:
        if not self.setting:
            raise ValueError("setting is empty; leave it out for the paper's five")
        _refuse_twice("setting", tuple(setting.variant for setting in self.setting))
        _refuse_twice("seeds", self.seeds)
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale must be two numbers, 0 < low <= high <= 1; found [{low:g}, {high:g}]"
            )
        return self


class RegularisationTable(Table):
    """``[regularisation]``: backbones of one name under several training settings, compared in order."""

    variants: Annotated[tuple[str, ...], Field(min_length=2)] = tuple(s.variant for s in PAPER_SETTINGS)

    @model_validator(mode="after")
    def _sensible(self) -> RegularisationTable:
        _refuse_twice("variants", self.variants)
        return self


class ConvergenceTable(Table):
    """``[convergence]``: independent trainings whose schedules end sooner and later (protocol, "Convergence")."""

    datasets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    fine_tune_steps: Numbers = (76, 152, 305, 610, 1220, 2441, 4882, 9765, 19531)
    from_scratch_steps: Numbers = (76, 152, 305, 610, 1220, 2441, 4882, 9765, 19531, 39062, 78125)

    @model_validator(mode="after")
    def _sensible(self) -> ConvergenceTable:
        _refuse_twice("datasets", self.datasets)
        for name in ("fine_tune_steps", "from_scratch_steps"):
            steps = getattr(self, name)
            _refuse_twice(name, steps)
            if len(steps) < 2:
                raise ValueError(f"{name} {list(steps)} holds one length; a comparison needs two or more")
        return self

    def steps(self, regime: str) -> tuple[int, ...]:
        """Return the schedule lengths of a regime, ascending."""
        return tuple(sorted(self.fine_tune_steps if regime == "fine_tune" else self.from_scratch_steps))
