"""Checked input of a probe: what the solver fits, free of everything it need not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.errors import ProbeError

Array = NDArray[Any]

CHECK_ROWS = 4096
SAME_LAMBDA = 1e-9
"""Relative difference up to which two lambdas are one."""
LEAST_LAMBDA = 1e-20
LARGEST_FEATURE = 1e15
"""Squares of larger ones, summed over rows and columns, leave no digits for anything else."""


@dataclass(frozen=True)
class Targets:
    """Labels in the form of the loss.

    A class without rows has no finite minimiser; its limit is known (weights 0, bias -inf), so it is left
    out of the fit and put back by `expand`.
    """

    loss: Literal["softmax", "sigmoid"]
    labels: Array
    """softmax: (n,) index into ``present``; sigmoid: (n, len(present)) int8 of 1, 0, -1 = ignored."""
    present: NDArray[np.intp]
    """Outputs that are fitted, as indices into all outputs."""
    limits: NDArray[np.float64]
    """(outputs,) intercept of those that are not fitted, -inf or +inf; 0 for the others."""

    two_classes: bool = False
    """Whether the single sigmoid tells two classes apart rather than a label from its absence."""

    def expand(self, coefficients: Array, intercepts: Array) -> tuple[Array, Array]:
        """Return (outputs, d) and (outputs,) with the outputs that were left out at their limits."""
        full = np.zeros((len(self.limits), coefficients.shape[1]), dtype=np.float64)
        full[self.present] = coefficients
        bias = self.limits.copy()
        bias[self.present] = intercepts
        return full, bias


def make_targets(labels: Array, n_classes: int | None = None) -> Targets:
    """Return the targets of labels that were checked by `check_labels`."""
    if labels.ndim == 2:
        return _sigmoid_targets(labels.astype(np.int8, copy=False))
    n_classes = int(labels.max()) + 1 if n_classes is None else n_classes
    if n_classes == 2:
        return replace(_sigmoid_targets((labels == 1).astype(np.int8)[:, None]), two_classes=True)
    counts = np.bincount(labels, minlength=n_classes)
    present = np.flatnonzero(counts)
    limits = np.where(counts > 0, 0.0, -np.inf)
    return Targets("softmax", np.searchsorted(present, labels), present, limits)


def _sigmoid_targets(labels: Array) -> Targets:
    """Return one sigmoid per column; a column without both kinds of labels goes to its limit."""
    positive, negative = (labels == 1).any(axis=0), (labels == 0).any(axis=0)
    limits = np.where(positive & negative, 0.0, np.where(positive, np.inf, -np.inf))
    present = np.flatnonzero(positive & negative)
    return Targets("sigmoid", labels[:, present], present, limits)


def check_labels(labels: ArrayLike, n: int, n_classes: int | None) -> Array:
    """Return the labels as an array, or raise `ProbeError` with what is wrong with them."""
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or len(labels) != n:
        raise ProbeError(f"features have {n} rows and labels have shape {labels.shape}: give one label a row")
    if labels.ndim == 2:
        if labels.shape[1] == 0 or not np.isin(labels, (-1, 0, 1)).all():
            raise ProbeError("multi-label labels must be 1, 0 or -1 (ignore) with a column a label")
        if n_classes is not None and labels.shape[1] != n_classes:
            raise ProbeError(f"labels have {labels.shape[1]} columns, class names are {n_classes}")
        return labels
    if not np.issubdtype(labels.dtype, np.integer):
        raise ProbeError(f"labels are {labels.dtype}: give integers, an index into the class names each")
    top = np.iinfo(np.int64).max if n_classes is None else n_classes - 1
    if labels.size and (labels.min() < 0 or labels.max() > top):
        bad = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise ProbeError(f"label {bad} lies outside the classes: give 0 to {top}")
    return labels.astype(np.int64, copy=False)


def check_fittable(targets: Targets) -> None:
    """Raise `ProbeError` where there is nothing to tell apart."""
    if targets.loss == "softmax" and len(targets.present) < 2:
        raise ProbeError("all rows are of one class: a probe needs at least two")
    if targets.loss == "sigmoid" and not len(targets.present):
        raise ProbeError("no label has both rows with it and rows without it: a probe needs both")


def check_features(features: Array) -> Array:
    """Return the features, or raise `ProbeError`: (n, d) float32, float16 or float64, all finite."""
    if features.ndim != 2 or not features.shape[0] or not features.shape[1]:
        raise ProbeError(f"features have shape {features.shape}: give (n, d) with at least one row")
    if not np.issubdtype(features.dtype, np.floating):
        raise ProbeError(f"features are {features.dtype}: give float32, float16 or float64")
    for start in range(0, len(features), CHECK_ROWS):
        finite = np.isfinite(features[start : start + CHECK_ROWS]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ProbeError(f"features contain NaN or infinity, first in row {row}: extract them again")
        if float(np.abs(features[start : start + CHECK_ROWS]).max()) > LARGEST_FEATURE:
            raise ProbeError(f"features are larger than {LARGEST_FEATURE:g}: scale them down")
    return features


def check_lambdas(lambdas: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
    """Return the grid as given, or raise `ProbeError`: positive, finite, each strength once."""
    grid = np.asarray(lambdas, dtype=np.float64)
    if grid.ndim != 1 or not grid.size:
        raise ProbeError("lambdas: give a list of at least one number")
    if not np.isfinite(grid).all() or (grid <= 0).any():
        raise ProbeError("lambdas: every strength must be finite and greater than 0")
    if grid.min() < LEAST_LAMBDA or grid.max() > 1 / LEAST_LAMBDA:
        extreme = grid.min() if grid.min() < LEAST_LAMBDA else grid.max()
        raise ProbeError(
            f"lambdas: {extreme:g} lies outside [{LEAST_LAMBDA:g}, {1 / LEAST_LAMBDA:g}], beyond which float64 "
            "cannot tell solutions apart"
        )
    ordered = np.sort(grid)
    if (np.diff(ordered) <= SAME_LAMBDA * ordered[1:]).any():
        raise ProbeError("lambdas: a strength is given twice, name each once")
    return grid


def check_tolerance(tolerance: float) -> None:
    """Raise `ProbeError` unless the tolerance lies in (0, 1)."""
    if not 0 < tolerance < 1:
        raise ProbeError(f"tolerance = {tolerance}: give a number between 0 and 1")
