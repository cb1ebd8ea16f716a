"""The tables of the paper's other experiments; a study that lacks one does not run that experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.tables import Fraction, Positive, Table


def _one_or_many(value: object) -> object:
    """Let a single number stand for a list of one."""
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
        _refuse_twice("per_class", self.per_class)
        if self.per_class is not None and self.largest is not None and max(self.per_class) > self.largest:
            raise ValueError(f"per_class goes up to {max(self.per_class)}, beyond largest = {self.largest}")
        return self


class ConvergenceTable(Table):
    """``[convergence]``: independent trainings whose schedules end sooner and later (protocol, "Convergence")."""

    datasets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    fine_tune_steps: Numbers = (76, 152, 305, 610, 1220, 2441, 4882, 9765, 19531)
    from_scratch_steps: Numbers = (76, 152, 305, 610, 1220, 2441, 4882, 9765, 19531, 39062, 78125)

    @model_validator(mode="after")
    def _sensible(self) -> ConvergenceTable:
        for name in ("fine_tune_steps", "from_scratch_steps"):
            steps = getattr(self, name)
            _refuse_twice(name, steps)
            if len(steps) < 2:
                raise ValueError(f"{name} {list(steps)} holds one length; a comparison needs two or more")
        return self

    def steps(self, regime: str) -> tuple[int, ...]:
        """Return the schedule lengths of a regime, ascending."""
        return tuple(sorted(self.fine_tune_steps if regime == "fine_tune" else self.from_scratch_steps))
