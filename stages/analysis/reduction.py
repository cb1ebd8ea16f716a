"""A least-squares problem of many rows as one of few: what ridge, LogME and the H-scores start from.

For an orthogonal Q, ||Y - X W|| = ||Q'Y - Q'X W|| for every W. The QR factorisation of [X, Y], block after
block, gives such a Q'X and Q'Y of at most d + K rows without ever forming X'X, whose condition number is the
square of X's. Its singular value decomposition then serves every ridge strength and every class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.blocks import blocks

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reduced:
    """Features and targets in the basis of the features' singular vectors."""

    n: int
    """Rows of the original problem."""
    mean: Floats
    """(d,) what was subtracted from the features; zeros where they were not centred."""
    target_mean: Floats
    """(K,) what was subtracted from the targets."""
    singular_values: Floats
    """(r,) of the (centred) features, descending, those that are zero to rounding left out."""
    directions: Floats
    """(d, r) right singular vectors."""
    projections: Floats
    """(r, K) left singular vectors' products with the targets."""
    outside: Floats
    """(K,) squared norm of the targets' part that no linear function of the features reaches."""
    fourth_moment: float
    """Sum over rows of the fourth power of the (centred) norm: Ledoit and Wolf's shrinkage needs it."""


def reduce(
    features: Array, targets: Floats, rows: NDArray[np.intp] | None = None, *, centre: bool = True
) -> Reduced:
    """Reduce a least-squares problem to its singular values.

    Parameters
    ----------
    features
        (n, d), read twice in blocks.
    targets
        (n, K), one row for each row of the features.
    rows
        Rows that enter, ascending; None = all.
    centre
        Whether the means of both are taken off: an intercept that no penalty touches.

    Notes
    -----
    Singular values below the largest times max(n, d) times 2^-52 count as zero, NumPy's own rule for a rank.
    """
    targets = targets if rows is None else targets[rows]
    n, d = len(targets), features.shape[1]
    mean, target_mean = np.zeros(d), np.zeros(targets.shape[1])
    if centre:
        mean = sum((block.sum(axis=0) for _, block in blocks(features, rows)), mean) / n
        target_mean = targets.mean(axis=0)
    triangle, fourth, done = np.empty((0, d + targets.shape[1])), 0.0, 0
    for _, block in blocks(features, rows):
        x = block - mean
        fourth += float(np.square(np.einsum("ij,ij->i", x, x)).sum())
        y = targets[done : done + len(x)] - target_mean
        done += len(x)
        triangle = _fewer_rows(np.vstack([triangle, np.hstack([x, y])]))
    u, s, vt = np.linalg.svd(triangle[:, :d], full_matrices=False)
    rank = int((s > s[0] * max(n, d) * np.finfo(np.float64).eps).sum())
    u, y = u[:, :rank], triangle[:, d:]
    z = u.T @ y
    outside = np.square(y - u @ z).sum(axis=0)
    return Reduced(n, mean, target_mean, s[:rank], vt[:rank].T, z, outside, fourth)


def _fewer_rows(matrix: Floats) -> Floats:
    """Return the triangular factor where it has fewer rows than the matrix."""
    if len(matrix) <= matrix.shape[1]:
        return matrix
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def one_hot(labels: Array, n_classes: int) -> Floats:
    """Return (n, K) of 1 and 0; multi-label labels are that already (-1 becomes 0: leave those rows out)."""
    if labels.ndim == 2:
        return np.asarray(labels == 1, dtype=np.float64)
    return np.asarray(labels[:, None] == np.arange(n_classes), dtype=np.float64)


def columns_by_rows(labels: Array, n_classes: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp] | None]]:
    """Group the outputs that are fitted on the same rows.

    Returns
    -------
    list of (columns, rows)
        One group of all classes on all rows (None); multi-label: labels whose ignored pairs (-1) lie in the
        same rows share one group, and those rows are not among its rows.
    """
    everything = np.arange(n_classes)
    if labels.ndim == 1 or not (labels < 0).any():
        return [(everything, None)]
    kept = labels >= 0
    masks, group = np.unique(kept.T, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return [
        (np.flatnonzero(group == g), None if mask.all() else np.flatnonzero(mask))
        for g, mask in enumerate(masks)
    ]
