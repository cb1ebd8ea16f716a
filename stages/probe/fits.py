"""The fits behind a selection: every trial along the grid, and the final probe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.basis import Basis, make_basis
from stages.probe.certificate import estimate
from stages.probe.folds import Trial
from stages.probe.losses import ABSENT, make_loss
from stages.probe.newton import Solver
from stages.probe.path import left_out, missed, unfold
from stages.probe.points import Point, Solution
from stages.probe.scaling import Scaling, scaled
from stages.probe.scan import Scan, scan
from stages.probe.targets import Targets, check_fittable, make_targets
from stages.probe.walk import walk
from stages.records import FeatureTable, Metric, Progress

Array = NDArray[Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """The final probe."""

    coefficients: Array
    intercepts: Array
    figures: dict[str, float]
    events: tuple[str, ...]


@dataclass(frozen=True)
class Fits:
    """Fits of subsets of one table."""

    table: FeatureTable
    metric: Metric
    tolerance: float
    scaling: Scaling
    memory: int | None

    def scan(self, trials: list[Trial], grid: Array, progress: Progress | None) -> tuple[Scan, Basis | None]:
        """Score a descending grid; return the basis that all trials shared, if they did."""
        basis = None
        if self.scaling == "none":
            basis = make_basis(self.table.features, self.memory, turned=True)
        if not len(grid):
            return Scan(np.zeros(0), np.ones(0, dtype=np.bool_)), basis
        apart = ((self._scaled_basis(trial.fitted), [trial]) for trial in trials)
        found = scan(
            [(basis, trials)] if basis is not None else apart,
            len(trials),
            self._targets(),
            self.table.labels,
            grid,
            self.metric,
            self.tolerance,
            progress,
        )
        return found, basis

    def refit(self, used: Array, l2_lambda: float, found: Scan, basis: Basis | None) -> Fitted:
        """Fit the final probe, from the mean solution of the trials where there is one."""
        start = found.warm.get(l2_lambda) if basis is not None else None
        basis = basis or self._scaled_basis(used)
        targets = self._targets()
        check_fittable(make_targets(self.table.labels[used], len(self.table.class_names)))
        loss = make_loss(targets, used[:, None])
        solver = Solver(basis, loss, loss.null()[0])
        if start is not None:
            start = _warmed(start, basis, loss.null()[1])
        ((_, solution),) = walk(solver, [l2_lambda], self.tolerance, start)
        if start is not None and not solution.converged.all():  # the mean of the folds may lie far out
            ((_, again),) = walk(solver, [l2_lambda], self.tolerance)
            if again.objective.sum() < solution.objective.sum():
                solution = again
        W, b = unfold(basis, targets, solution.point.weights, solution.point.intercepts)
        if self.scaling != "none":
            W = W * scaled(self.table.features, used)[1]
        figures = {
            "objective": float(solution.objective.sum()),
            "bound": float(solution.bound.sum()),
            "estimate": estimate(solver, solution.evaluation, l2_lambda),
        }
        events = left_out(targets, self.table.class_names)
        return Fitted(W, b, figures, events + _refit_missed(solution, l2_lambda, self.tolerance))

    def _targets(self) -> Targets:
        """Return the targets of all rows."""
        targets = make_targets(self.table.labels, len(self.table.class_names))
        check_fittable(targets)
        return targets

    def _scaled_basis(self, fitted: Array) -> Basis:
        """Return the basis of features scaled by the rows that are fitted."""
        return make_basis(scaled(self.table.features, fitted)[0], self.memory)


def _warmed(start: Point, basis: Basis, null: Array) -> Point:
    """Return the start with its logits, and the null's intercepts where no trial had any, or no row has one."""
    weights = start.weights.astype(np.float64)
    P, K, d = weights.shape
    logits = basis.forward(weights.reshape(-1, d)).reshape(-1, P, K)
    without = np.isnan(start.intercepts) | (np.abs(null) >= -ABSENT / 2)
    intercepts = np.where(without, null, start.intercepts)
    return Point(weights, intercepts, logits, basis.rounding(weights))


def _refit_missed(solution: Solution, l2_lambda: float, tolerance: float) -> tuple[str, ...]:
    """Return a line, and log it, where the refit missed its tolerance."""
    if solution.converged.all():
        return ()
    line = missed(l2_lambda, tolerance, float(solution.bound.sum()), float(solution.objective.sum()))
    log.warning("refit: %s", line)
    return (f"refit: {line}",)
