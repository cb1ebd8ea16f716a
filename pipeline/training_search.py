"""The choice of a grid point on validation: which trainings it takes, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.interrupted import training_state
from pipeline.jobs import STAGE_OF_REGIME, Planned
from pipeline.ledger import History
from pipeline.training_cell import Cell
from stages.train.grid import GridPoint, Rung, Selection, promote, rungs, select

EVERY_POINT_DIVERGED = "every grid point diverged"
"""Why a final training waits for ever; the join shows the cell as diverged."""


class Search:
    """The choice of a grid point on validation: the whole grid at full length, or successive halving.

    Parameters
    ----------
    cell : Cell
    points : sequence of GridPoint
        The whole grid; of one point nothing is chosen.
    history : History
        The values of the trainings that are done.
    """

    def __init__(self, cell: Cell, points: Sequence[GridPoint], history: History) -> None:
        self._cell, self._history = cell, history
        self._points = self._survivors = tuple(points)
        self._values: dict[GridPoint, float | None] = {}
        self._rungs: tuple[Rung, ...] = (Rung(len(points), cell.recipe.steps),)
        if cell.table.search == "halving":
            self._rungs = rungs(len(points), cell.recipe.steps, cell.table.halving_factor)
        self._place = 0

    def planned(self) -> Iterator[Planned]:
        """Plan rung after rung, up to the first one that is not done."""
        for place, rung in enumerate(self._rungs):
            self._place = place
            if place:
                values = [self._values[point] for point in self._survivors]
                self._survivors = promote(self._survivors, values, rung.points)
            self._values = {}
            for point in self._survivors:
                yield self._plan_point(point, rung)
            if len(self._values) < len(self._survivors):
                return

    def _plan_point(self, point: GridPoint, rung: Rung) -> Planned:
        """Plan one training and take its value where it is done."""
        job = self._cell.job(point, self._cell.table.seeds[0], final=False, steps=rung.steps)
        state, why = training_state(job, self._history, self._cell.output)
        record = self._history.result_of(job.name, job.spec_digest)
        if record is not None:
            self._values[point] = record.summary["value"]
        return Planned(job.name, STAGE_OF_REGIME[self._cell.regime], state, why, job)

    def choice(self) -> tuple[Selection | None, str]:
        """Return what was chosen; None and why where that cannot be yet."""
        if len(self._points) == 1:
            return Selection(self._points[0], float("nan")), ""
        left = len(self._survivors) - len(self._values)
        if left:
            where = f"rung {self._place + 1} of {len(self._rungs)}: " if len(self._rungs) > 1 else ""
            return None, f"{where}{left} of {len(self._survivors)} grid points are left"
        if all(value is None for value in self._values.values()):
            return None, EVERY_POINT_DIVERGED
        values = [self._values[point] for point in self._survivors]
        chosen = select(self._survivors, values, of=self._points)
        return replace(chosen, warnings=(*self._told(), *chosen.warnings)), ""

    def _told(self) -> Iterator[str]:
        """Say what successive halving did, for the record and the report."""
        if len(self._rungs) > 1:
            rounds = ", ".join(f"{rung.points} for {rung.steps} steps" for rung in self._rungs)
            yield f"chosen by successive halving: {rounds}"
        elif self._cell.table.search == "halving":
            yield "too few points or steps to halve: all were trained at full length"
