"""Score every lambda on rows that were not fitted, all folds side by side on one decomposition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
from stages.probe.losses import make_loss
from stages.probe.newton import Point, Solver
from stages.probe.targets import Targets
from stages.probe.walk import walk
from stages.records import Metric, Progress

Array = NDArray[Any]

GROUP_BYTES = 256 << 20
"""Logits of the folds that walk together; fewer folds at a time where they would take more."""
WARM_BYTES = 512 << 20
"""Mean weights of the folds that are kept, a start for the refit."""


@dataclass(frozen=True)
class Trial:
    """One subset to fit and the rows to score it on."""

    fitted: NDArray[np.bool_]
    """(n,)."""
    held: NDArray[np.intp]
    """Rows that are scored."""


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
    L, n_classes = len(grid), _n_scores(targets, labels)
    tally = _Tally(metric, L, n_classes)
    result = Scan(np.zeros(L), np.ones(L, dtype=np.bool_))
    done = 0
    for basis, group in _groups(parts, len(labels) * len(targets.present) * 8):
        loss = make_loss(targets, np.stack([trial.fitted for trial in group], axis=1))
        solver = Solver(basis, loss, loss.null()[0])
        keep = 4 * L * basis.size * len(targets.present) <= WARM_BYTES
        for i, (l2_lambda, solution) in enumerate(walk(solver, grid, tolerance)):
            result.converged[i] &= bool(solution.converged.all())
            for which, trial in enumerate(group):
                tally.add(i, labels[trial.held], held_logits(targets, solution.point, which, trial.held))
            if keep:
                _remember(result.warm, l2_lambda, solution.point, targets, n_trials)
            if progress is not None:
                progress(done + (i + 1) * len(group), L * n_trials, f"lambda {l2_lambda:.3g}")
        done += L * len(group)
    result.values = tally.values()
    return result


def held_logits(targets: Targets, point: Point, which: int, rows: Array) -> Array:
    """Return (r, K) logits of a trial on some rows; two classes become the columns (0, z)."""
    if targets.loss == "softmax":
        z = point.logits[rows, which] + point.intercepts[which]
    else:
        outputs = len(targets.present)
        problems = slice(which * outputs, (which + 1) * outputs)
        z = point.logits[rows, problems, 0] + point.intercepts[problems, 0]
        if targets.two_classes:
            return np.hstack([np.zeros_like(z), z])
    full = np.broadcast_to(targets.limits, (len(rows), len(targets.limits))).copy()
    full[:, targets.present] = z
    return full


def _n_scores(targets: Targets, labels: Array) -> int:
    """Return the columns of the scores."""
    return 2 if targets.two_classes else len(targets.limits)


def _groups(
    parts: Iterable[tuple[Basis, list[Trial]]], bytes_each: int
) -> Iterator[tuple[Basis, list[Trial]]]:
    """Yield the trials that walk together."""
    size = max(1, GROUP_BYTES // max(bytes_each, 1))
    for basis, trials in parts:
        for start in range(0, len(trials), size):
            yield basis, trials[start : start + size]


def _remember(
    warm: dict[float, Point], l2_lambda: float, point: Point, targets: Targets, n_trials: int
) -> None:
    """Add a group's solutions to the mean of all trials; intercepts are the median of its first group."""
    m, P, K = point.weights.shape
    outputs = 1 if targets.loss == "softmax" else len(targets.present)
    weights = point.weights.reshape(m, -1, outputs, K).sum(axis=1) / n_trials
    intercepts = np.median(point.intercepts.reshape(-1, outputs, K), axis=0)
    if l2_lambda in warm:
        weights = warm[l2_lambda].weights + weights
        intercepts = warm[l2_lambda].intercepts
    warm[l2_lambda] = Point(weights.astype(np.float32), intercepts, np.zeros((0, outputs, K)))


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
