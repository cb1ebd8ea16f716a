"""Logit accuracy, its clamping, and Morey's error bars (protocol, "Statistics")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.records import Metric

SAME = 1e-9
"""Log odds no further apart are equal: sums of the same numbers in another order."""


def alike(x: NDArray[np.floating[Any]]) -> bool:
    """Return whether all log odds are equal, but for rounding."""
    return bool(np.ptp(x) <= SAME)


def log_odds(p: ArrayLike) -> NDArray[np.float64]:
    """Return ln(p / (1 - p)), elementwise; p = 0 and p = 1 give infinities, as they should."""
    from scipy.special import logit

    return np.asarray(logit(np.asarray(p, dtype=float)), dtype=float)


def fraction(x: ArrayLike) -> NDArray[np.float64]:
    """Return the fraction whose log odds are ``x``: the inverse of :func:`log_odds`."""
    from scipy.special import expit

    return np.asarray(expit(np.asarray(x, dtype=float)), dtype=float)


def floor_of(metric: Metric, n_test: int | None, counts: Sequence[int] | None) -> float | None:
    """Return e, the smallest fraction that a cell's log odds are taken of (its mirror image is 1 - e).

    Parameters
    ----------
    metric : {"top_1", "mean_per_class", "map_11_point"}
    n_test : int or None
        Rows of the test split.
    counts : sequence of int or None
        Test rows of each class (multi-label: positives of each label); classes without any do not enter.

    Returns
    -------
    float or None
        1/(2n + 2) for top-1; 1/(2K(m + 1)), with m the largest of the K counts, for the two others;
        1/(2n + 2) for those too where the counts are unknown. None where nothing is known.

    Notes
    -----
    Source: protocol, "Statistics" (our choice).
    """
    present = [] if counts is None else [c for c in counts if c > 0]
    if metric != "top_1" and present:
        return 1.0 / (2 * len(present) * (max(present) + 1))
    return None if n_test is None else 1.0 / (2 * n_test + 2)


def clamp(value: float, floor: float | None) -> float:
    """Return the value moved into [floor, 1 - floor]; unchanged where the floor is unknown."""
    return value if floor is None else min(max(value, floor), 1.0 - floor)


def morey_bars(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the standard error over data sets of each model's mean, after Morey (2008).

    Parameters
    ----------
    x : ndarray of shape (M, D)
        Log odds of M models on D data sets, without gaps.

    Returns
    -------
    ndarray of shape (M,)
        Standard error (ddof 1, over sqrt(D)) of x minus the mean over models of each data set, times
        sqrt(M / (M - 1)); NaN where M < 2 or D < 2.

    Raises
    ------
    ValueError
        If a cell is missing: the correction is defined on a complete table only.
    """
    x = np.asarray(x, dtype=float)
    models, datasets = x.shape
    if not np.isfinite(x).all():
        raise ValueError("Morey's bars need a complete table: leave out backbones or data sets with gaps")
    if models < 2 or datasets < 2:
        return np.full(models, np.nan)
    adjusted = x - x.mean(axis=0)
    errors = adjusted.std(axis=1, ddof=1) / np.sqrt(datasets)
    return np.asarray(errors * np.sqrt(models / (models - 1)))
