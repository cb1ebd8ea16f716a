"""Ridge regression on the classes in closed form: one decomposition for every strength."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.blocks import blocks
from stages.analysis.checks import check_pair
from stages.analysis.reduction import Reduced, columns_by_rows, one_hot, reduce
from stages.analysis.selection import Candidate, ReadOut, best_of, check_fold, pooled, trials
from stages.errors import InputError
from stages.metrics import evaluate
from stages.records import FeatureTable, Metric
from stages.splitting import units_of

Array = NDArray[Any]
Floats = NDArray[np.float64]

STRENGTHS = 45
RANGE = (1e-6, 1e5)
"""Of the default strengths, in units of the mean squared singular value of the centred features."""


def ridge(
    train: FeatureTable,
    test: FeatureTable,
    metric: Metric,
    *,
    lambdas: Sequence[float] | None = None,
    fold: Array | None = None,
) -> ReadOut:
    """Fit a linear function of the features to the classes by penalised least squares.

    Minimises ||Y - X W - b||^2 + l2_lambda ||W||^2 with Y = 1 for a row's class and 0 elsewhere, the
    intercepts b free (regularised least squares, one against all: Rifkin, Yeo and Poggio 2003).

    Parameters
    ----------
    train : FeatureTable
        All rows that may be fitted: train + validation where there is a validation split.
    test : FeatureTable
        Scored once.
    metric : {"top_1", "mean_per_class", "map_11_point"}
        The data set's own; it also chooses the strength.
    lambdas : sequence of float, optional
        Strengths above 0, absolute. Default: 45 from 1e-6 to 1e5 times the mean squared singular value of
        the centred features, so that a change of the features' scale changes nothing.
    fold : ndarray of int, shape (n,), optional
        Fold of each training row, -1 = fitted in every fold; ``ProbeResult.folds`` fits. Default: every row
        is predicted from all others, exactly and without another fit (the PRESS residual e / (1 - h)); rows
        of one group and byte-identical images are left out together (I - H restricted to them is solved).

    Returns
    -------
    ReadOut
        Scores are fitted values, no probabilities; -inf for a class without training rows.

    Raises
    ------
    InputError
        Tables that do not fit each other, or a strength that is not above 0.

    Notes
    -----
    Multi-label: one output a label. A label's ignored pairs (-1) take no part in its fit, which costs one
    decomposition for each pattern of ignored rows.
    """
    started = time.perf_counter()
    check_pair(train, test, metric)
    grid = _strengths(train, lambdas)
    if fold is None:
        method = "every row (group, set of identical images) predicted from all others"
        values = _left_out(train, metric, grid)
    else:
        fold, method = check_fold(fold, len(train.labels))
        values = _over_folds(train, metric, grid, fold)
    candidates = [Candidate(float(g), v) for g, v in zip(grid, values, strict=True)]
    chosen = best_of(candidates).setting
    scores = _Fit(train, None).scores(test.features, None, chosen)
    at_edge = len(grid) > 1 and chosen in (grid.min(), grid.max())
    return ReadOut(
        name="ridge",
        metric=metric,
        value=evaluate(metric, test.labels, scores),
        settings={"l2_lambda": chosen},
        selection=tuple(candidates),
        selection_method=method,
        test_scores=scores,
        n_train=len(train.labels),
        n_test=len(test.labels),
        seconds=time.perf_counter() - started,
        warnings=("the chosen l2_lambda lies at the edge of the grid",) if at_edge else (),
    )


def _strengths(train: FeatureTable, lambdas: Sequence[float] | None) -> Floats:
    """Return the grid of strengths."""
    if lambdas is not None:
        grid = np.asarray(lambdas, dtype=np.float64)
        if grid.ndim != 1 or not grid.size or not (np.isfinite(grid) & (grid > 0)).all():
            raise InputError("lambdas: every strength must be finite and greater than 0")
        return grid
    n, d = train.features.shape
    mean = sum((block.sum(axis=0) for _, block in blocks(train.features)), np.zeros(d)) / n
    spread = sum(float(np.square(block - mean).sum()) for _, block in blocks(train.features))
    if spread == 0:
        raise InputError("train: all rows have the same features: there is nothing to fit")
    return np.asarray(np.geomspace(*RANGE, STRENGTHS) * (spread / min(n, d)))


class _Fit:
    """Ridge on some rows of a table, at any strength."""

    def __init__(self, train: FeatureTable, fitted: NDArray[np.intp] | None) -> None:
        self.n_classes = len(train.class_names)
        labels = train.labels if fitted is None else train.labels[fitted]
        targets = one_hot(train.labels, self.n_classes)
        self.parts = []
        for columns, rows in columns_by_rows(labels, self.n_classes):
            if rows is None or rows.size:
                within = rows if fitted is None else fitted if rows is None else fitted[rows]
                self.parts.append((columns, reduce(train.features, targets[:, columns], within)))

    def scores(self, features: Array, held: NDArray[np.intp] | None, strength: float) -> Floats:
        """Return (m, K) predictions for the rows held; -inf for a class without fitted rows."""
        scores = np.full((len(features) if held is None else len(held), self.n_classes), -np.inf)
        for columns, reduced in self.parts:
            weights = reduced.directions @ _coefficients(reduced, strength)
            present, done = reduced.target_mean > 0, 0
            for _, block in blocks(features, held):
                values = (block - reduced.mean) @ weights + reduced.target_mean
                scores[done : done + len(block), columns[present]] = values[:, present]
                done += len(block)
        return scores


def _coefficients(reduced: Reduced, strength: float) -> Floats:
    """Return (r, K) coefficients of the directions."""
    s = reduced.singular_values
    return np.asarray((s / (s**2 + strength))[:, None] * reduced.projections)


def _over_folds(train: FeatureTable, metric: Metric, grid: Floats, fold: NDArray[np.int16]) -> list[float]:
    """Return the metric at every strength over the folds."""
    fits = [(held, _Fit(train, fitted)) for fitted, held in trials(fold)]
    return [
        pooled(
            metric,
            [(train.labels[held], fit.scores(train.features, held, float(strength))) for held, fit in fits],
        )
        for strength in grid
    ]


def _left_out(train: FeatureTable, metric: Metric, grid: Floats) -> list[float]:
    """Return the metric at every strength, every unit predicted from all others."""
    n, n_classes = len(train.labels), len(train.class_names)
    units = units_of(n, train.groups, train.image_sha256)
    parts = []
    for columns, rows in columns_by_rows(train.labels, n_classes):
        if rows is None or rows.size:
            targets = one_hot(train.labels, n_classes)[:, columns]
            parts.append((columns, rows, _LeaveOut(train.features, targets, rows, units)))
    belongs = one_hot(train.labels, n_classes) > 0
    single = np.array([len(np.unique(units[column])) == 1 for column in belongs.T])
    # A class whose rows all leave together has none to be fitted on, and is an error as in a fold.
    alone = belongs & single
    values = []
    for strength in grid:
        # A pair that is ignored is not scored, so any finite number may stand there.
        scores = np.zeros((n, n_classes))
        for columns, rows, part in parts:
            where = np.arange(n) if rows is None else rows
            scores[np.ix_(where, columns)] = part.predictions(float(strength))
        scores[alone] = -np.inf
        values.append(evaluate(metric, train.labels, scores))
    return values


class _LeaveOut:
    """Predictions of every unit of rows from all other rows."""

    def __init__(
        self, features: Array, targets: Floats, rows: NDArray[np.intp] | None, units: NDArray[np.intp]
    ) -> None:
        self.reduced = reduce(features, targets, rows)
        # Left singular vectors, 8 n r bytes: the largest thing that is kept.
        self.left = np.empty((self.reduced.n, len(self.reduced.singular_values)))
        done = 0
        for _, block in blocks(features, rows):
            p = (block - self.reduced.mean) @ self.reduced.directions
            self.left[done : done + len(p)] = p / self.reduced.singular_values
            done += len(p)
        self.targets = targets if rows is None else targets[rows]
        units = units if rows is None else units[rows]
        _, unit = np.unique(units, return_inverse=True)
        order = np.argsort(unit, kind="stable")
        together = np.split(order, np.cumsum(np.bincount(unit))[:-1])
        self.groups = [group for group in together if len(group) > 1]

    def predictions(self, strength: float) -> Floats:
        """Return (n, K) predictions at one strength."""
        s2 = self.reduced.singular_values**2
        shrunk = s2 / (s2 + strength)
        n = len(self.left)
        fitted = self.left @ (shrunk[:, None] * self.reduced.projections) + self.reduced.target_mean
        residual = self.targets - fitted
        hat = np.einsum("ij,ij,j->i", self.left, self.left, shrunk) + 1 / n
        # 1 - h is zero only for a row that alone decides its own prediction: it says nothing then.
        left_out = residual / np.maximum(1 - hat, np.finfo(np.float64).eps)[:, None]
        for group in self.groups:
            own = self.left[group]
            block = np.eye(len(group)) - (own * shrunk) @ own.T - 1 / n
            left_out[group] = np.linalg.lstsq(block, residual[group], rcond=None)[0]
        return np.asarray(self.targets - left_out)
