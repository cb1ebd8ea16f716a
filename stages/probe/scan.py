"""Score every lambda on rows that were not fitted, all folds side by side on one decomposition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.metrics import (
    average_precisions,
    class_counts,
    mean_per_class_from_counts,
    top_1_from_counts,
)
from stages.probe.basis import Basis
from stages.probe.folds import Trial
from stages.probe.losses import ABSENT, make_loss
from stages.probe.newton import Solver
from stages.probe.points import Point
from stages.probe.targets import Targets
from stages.probe.walk import walk
from stages.records import Metric, Progress

Array = NDArray[Any]

TOGETHER_COLUMNS = 128
"""Columns at which a product is as fast as it gets; trials walk together up to this many."""
GROUP_BYTES = 128 << 20
"""Logits of trials that walk together; one at a time where they would take more."""
WARM_BYTES = 512 << 20
"""Mean weights of the folds that are kept, a start for the refit."""


@dataclass
class Scan:
    """What the trials say of every lambda, in descending order of lambda."""

    values: NDArray[np.float64]
    """(L,) the metric: accuracies pooled over trials, mAP averaged over trials and labels."""
    converged: NDArray[np.bool_]
    """(L,) whether every fit met its tolerance."""
    warm: dict[float, Point] = field(default_factory=dict)
    """Lambda to the mean solution of the trials, without logits; empty where it would not fit."""


def scan(
    parts: Iterable[tuple[Basis, list[Trial]]],
    n_trials: int,
    targets: Targets,
    labels: Array,
    grid: Array,
    metric: Metric,
    tolerance: float,
    progress: Progress | None = None,
) -> Scan:
    """Fit every trial along the descending grid and score the rows it has not seen.

    Parameters
    ----------
    parts
        A basis of all rows, and the trials that share it.
    n_trials
        Over all parts.
    targets
        Of all rows.
    labels
        (n,) or (n, K), as the metric wants them.
    """
    L, n_classes = len(grid), _n_scores(targets)
    tally = _Tally(metric, L, n_classes)
    result = Scan(np.zeros(L), np.ones(L, dtype=np.bool_))
    done = 0
    for basis, group in _groups(parts, targets):
        keep = 4 * L * basis.size * len(targets.present) <= WARM_BYTES
        solver, score = _prepare(basis, targets, group)
        for i, (l2_lambda, solution) in enumerate(walk(solver, grid, tolerance)):
            result.converged[i] &= bool(solution.converged.all())
            for which, trial in enumerate(group):
                tally.add(i, labels[trial.held], score(solution.point, which))
            if keep:
                _remember(result.warm, l2_lambda, solution.point, targets, n_trials)
            if progress is not None:
                progress(done + (i + 1) * len(group), L * n_trials, f"lambda {l2_lambda:.3g}")
        done += L * len(group)
    result.values = tally.values()
    return result


def _prepare(
    basis: Basis, targets: Targets, group: list[Trial]
) -> tuple[Solver, Callable[[Point, int], Array]]:
    """Return the solver of a group, and what gives the logits of a trial's held rows."""
    only = basis.subset(np.flatnonzero(group[0].fitted)) if len(group) == 1 else None
    if only is None:
        loss = make_loss(targets, np.stack([trial.fitted for trial in group], axis=1))

        def among_all(point: Point, which: int) -> Array:
            return _scores(targets, point, which, point.logits[group[which].held])

        return Solver(basis, loss, loss.null()[0]), among_all
    fitted, held = np.flatnonzero(group[0].fitted), basis.subset(group[0].held)
    assert held is not None
    loss = make_loss(replace(targets, labels=targets.labels[fitted]), np.ones((len(fitted), 1)))

    def apart(point: Point, which: int) -> Array:
        P, K, d = point.weights.shape
        logits = held.forward(point.weights.reshape(-1, d).astype(np.float32))
        return _scores(targets, point, which, logits.reshape(-1, P, K))

    return Solver(only, loss, loss.null()[0]), apart


def _scores(targets: Targets, point: Point, which: int, logits: Array) -> Array:
    """Return (r, K) logits of a trial from (r, P, K) without intercepts; two classes are columns (0, z)."""
    if targets.loss == "softmax":
        z = logits[:, which] + point.intercepts[which]
    else:
        outputs = len(targets.present)
        problems = slice(which * outputs, (which + 1) * outputs)
        z = logits[:, problems, 0] + point.intercepts[problems, 0]
        if targets.two_classes:
            return np.hstack([np.zeros_like(z), z])
    full = np.broadcast_to(targets.limits, (len(z), len(targets.limits))).copy()
    full[:, targets.present] = z
    return full


def _n_scores(targets: Targets) -> int:
    """Return the columns of the scores."""
    return 2 if targets.two_classes else len(targets.limits)


def _groups(
    parts: Iterable[tuple[Basis, list[Trial]]], targets: Targets
) -> Iterator[tuple[Basis, list[Trial]]]:
    """Yield the trials that walk together: as many as make a wide product, one where K is large."""
    size = max(1, TOGETHER_COLUMNS // len(targets.present))
    for basis, trials in parts:
        if 8 * basis.rows * len(targets.present) * min(size, len(trials)) > GROUP_BYTES:
            size = 1
        for start in range(0, len(trials), size):
            yield basis, trials[start : start + size]


def _remember(
    warm: dict[float, Point], l2_lambda: float, point: Point, targets: Targets, n_trials: int
) -> None:
    """Add a group's solutions to the mean of all trials; intercepts are the median of the first that have them.

    A trial whose rows lack a class has no intercept for it: NaN, until one of another group is found.
    """
    _, K, d = point.weights.shape
    outputs = 1 if targets.loss == "softmax" else len(targets.present)
    if l2_lambda not in warm:
        nothing = np.zeros((outputs, K, d), np.float32), np.full((outputs, K), np.nan)
        warm[l2_lambda] = Point(*nothing, np.zeros((0, outputs, K)), np.zeros(outputs))
    known = warm[l2_lambda].intercepts
    for k in np.argwhere(np.isnan(known)):
        there = point.intercepts.reshape(-1, outputs, K)[:, k[0], k[1]]
        there = there[np.abs(there) < -ABSENT / 2]
        if len(there):
            known[k[0], k[1]] = np.median(there)
    for weights in point.weights.reshape(-1, outputs, K, d):
        warm[l2_lambda].weights += (weights / n_trials).astype(np.float32)


class _Tally:
    """Hits and precisions per lambda."""

    def __init__(self, metric: Metric, n_lambdas: int, n_classes: int) -> None:
        self.metric = metric
        self.hits = np.zeros((n_lambdas, n_classes), dtype=np.int64)
        self.totals = np.zeros((n_lambdas, n_classes), dtype=np.int64)
        self.precisions: list[list[float]] = [[] for _ in range(n_lambdas)]

    def add(self, index: int, labels: Array, logits: Array) -> None:
        """Count the rows of one trial at one lambda."""
        if not len(labels):
            return
        if self.metric == "map_11_point":
            precisions = average_precisions(labels, logits)
            self.precisions[index].extend(precisions[~np.isnan(precisions)])
        else:
            hits, totals = class_counts(labels, logits)
            self.hits[index] += hits
            self.totals[index] += totals

    def values(self) -> NDArray[np.float64]:
        """Return the metric at every lambda."""
        if self.metric == "map_11_point":
            return np.array([np.mean(p) if p else 0.0 for p in self.precisions])
        value = top_1_from_counts if self.metric == "top_1" else mean_per_class_from_counts
        return np.array([value(h, t) for h, t in zip(self.hits, self.totals, strict=True)])
