"""How much r depends on which backbones and which data sets happened to be in the study."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.correlation import FEWEST_FOR_INTERVAL
from stages.report.logodds import SAME, alike

Array = NDArray[np.floating[Any]]

DRAWS = 2000
BAND_POINTS = 25


def bootstrap(x: Array, y: Array, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any] | None:
    """Resample backbones: the interval of r, and the band around the regression line.

    Parameters
    ----------
    x, y : ndarray of shape (M,)
        Log odds of ImageNet top-1 and of transfer.
    draws : int
        Resamples; those with fewer than three different values of x, or without variation in y, have
        no r that means anything and are not counted.
    seed : int

    Returns
    -------
    dict or None
        ``interval`` of r, ``draws`` counted, and the band: ``x``, ``low``, ``high`` (log odds), all at
        95 %, percentile. None below four backbones.

    Notes
    -----
    The band is the figures' of the paper [H]; the interval stands beside Fisher's, which is the primary
    one (protocol, "Statistics").
    """
    models = len(x)
    if models < FEWEST_FOR_INTERVAL or alike(x) or alike(y):
        return None
    rows = np.random.default_rng(seed).integers(0, models, size=(draws, models))
    xs, ys = x[rows], y[rows]
    different = 1 + (np.diff(np.sort(xs, axis=1), axis=1) > SAME).sum(axis=1)
    enough = (different >= 3) & (np.ptp(ys, axis=1) > SAME)
    xs, ys = xs[enough], ys[enough]
    dx, dy = xs - xs.mean(axis=1, keepdims=True), ys - ys.mean(axis=1, keepdims=True)
    sxx, sxy, syy = (dx * dx).sum(axis=1), (dx * dy).sum(axis=1), (dy * dy).sum(axis=1)
    r = sxy / np.sqrt(sxx * syy)
    slope = sxy / sxx
    grid = np.linspace(x.min(), x.max(), BAND_POINTS)
    lines = ys.mean(axis=1)[:, None] + slope[:, None] * (grid - xs.mean(axis=1)[:, None])
    low, high = np.percentile(lines, [2.5, 97.5], axis=0)
    return {
        "interval": [float(v) for v in np.percentile(r, [2.5, 97.5])],
        "draws": int(enough.sum()),
        "band": {"x": grid.tolist(), "low": low.tolist(), "high": high.tolist()},
    }


def leave_one_out(x: Array, means: Array, names: list[str]) -> dict[str, Any] | None:
    """Return the range of r when one data set at a time is left out, and which ones make its ends.

    Parameters
    ----------
    x : ndarray of shape (M,)
        Log odds of ImageNet top-1.
    means : ndarray of shape (M, D)
        Mean log odds of transfer without each of the D data sets.
    names : list of str
        Of the data sets.

    Returns
    -------
    dict or None
        ``range`` [low, high], ``without_lowest`` and ``without_highest`` (the data set whose absence
        gives each). None below four backbones or three data sets.
    """
    if len(x) < FEWEST_FOR_INTERVAL or means.shape[1] < 3 or alike(x):
        return None
    if (np.ptp(means, axis=0) <= SAME).any():
        return None
    r = [float(np.corrcoef(x, means[:, d])[0, 1]) for d in range(means.shape[1])]
    low, high = int(np.argmin(r)), int(np.argmax(r))
    return {"range": [r[low], r[high]], "without_lowest": names[low], "without_highest": names[high]}
