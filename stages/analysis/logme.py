"""LogME: how likely the labels are under a linear model of the features, its coefficients averaged out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.reduction import Reduced, columns_by_rows, one_hot, reduce

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_STEPS = 10_000
TOLERANCE = 1e-9
"""On the change of ln(alpha / beta) in one step."""
LEAST_RATIO, LARGEST_RATIO = 1e-12, 1e12
"""Of alpha / beta, in units of the mean squared singular value; beyond them the evidence has its limit."""


@dataclass(frozen=True)
class LogMe:
    """Log maximum evidence, with the fixed point of every class."""

    value: float
    """Mean over classes of the log evidence a row, in nats; NaN where a class has none."""
    evidence: Floats
    """(K,) log evidence a row; NaN for a class with all rows or none."""
    alpha: Floats
    """(K,) precision of the prior on the coefficients."""
    beta: Floats
    """(K,) precision of the noise."""
    steps: int
    """Of the fixed-point iteration, until the last class stood."""
    converged: NDArray[np.bool_]
    """(K,) whether the class's iteration stood still."""
    at_bound: NDArray[np.bool_]
    """(K,) whether it stood at a bound: the evidence grows towards a model without coefficients (alpha without
    end: the features say nothing of the class) or without noise, and is the limit's."""


def logme(features: Array, labels: Array, n_classes: int) -> LogMe:
    """Return LogME, the maximum of the log evidence of Bayesian linear regression on each class.

    For one class with y in {0, 1}: y = F w + noise, w ~ N(0, I / alpha), noise ~ N(0, I / beta); the evidence
    p(y | F, alpha, beta), w averaged out, is maximised over alpha and beta. LogME is the mean over classes
    of its logarithm divided by the number of rows.

    Parameters
    ----------
    features
        (n, d), as they are: the model has no intercept and the features are not centred.
    labels
        (n,) integers, or (n, K) of 1, 0 and -1; a label's ignored rows take no part in its evidence.
    n_classes
        K.

    Returns
    -------
    LogMe

    Notes
    -----
    Definition and fixed point: You, Liu, Wang and Long 2021, "LogME: practical assessment of pre-trained
    models for transfer learning", sections 4.2-4.3 (eq. 2), in the faster form of You et al. 2022,
    "Ranking and tuning pre-trained models", on one decomposition for all classes. Published code stops
    after 11 steps; here the iteration runs until ln(alpha / beta) moves by less than 1e-9 or is at a bound, in
    float64, on features scaled to a mean squared singular value of 1: the value does not depend on the features'
    scale. It does depend on a shift of the features. Values of data sets with other n, K or labels are not
    comparable with one another; LogME ranks backbones on one data set.

    Examples
    --------
    >>> labels = np.arange(40) % 2
    >>> good = np.stack([labels, 1 - labels], axis=1) + np.random.default_rng(0).normal(0, 0.1, (40, 2))
    >>> bad = np.random.default_rng(1).normal(0, 1, (40, 2))
    >>> logme(good, labels, 2).value > logme(bad, labels, 2).value
    True
    """
    found = [np.full(n_classes, np.nan) for _ in range(3)]
    flags = [np.zeros(n_classes, dtype=np.bool_) for _ in range(2)]
    steps, targets = 0, one_hot(labels, n_classes)
    for columns, rows in columns_by_rows(labels, n_classes):
        if rows is not None and not rows.size:
            continue
        own = targets[:, columns] if rows is None else targets[rows][:, columns]
        # Without a positive or without a negative row there is nothing to explain.
        mixed = (own.mean(axis=0) > 0) & (own.mean(axis=0) < 1)
        if not mixed.any():
            continue
        fixed = _fixed_point(reduce(features, targets[:, columns[mixed]], rows, centre=False))
        for whole, part in zip(found, (fixed.evidence, fixed.alpha, fixed.beta), strict=True):
            whole[columns[mixed]] = part
        for flag, share in zip(flags, (fixed.converged, fixed.at_bound), strict=True):
            flag[columns[mixed]] = share
        steps = max(steps, fixed.steps)
    evidence, alpha, beta = found
    return LogMe(float(evidence.mean()), evidence, alpha, beta, steps, flags[0], flags[1])


@dataclass(frozen=True)
class _Fixed:
    """Fixed points of some classes on the same rows; fields as in `LogMe`."""

    evidence: Floats
    alpha: Floats
    beta: Floats
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]
    steps: int


def _fixed_point(reduced: Reduced) -> _Fixed:
    """Iterate the ratio alpha / beta of every column to its fixed point, or to a bound."""
    n, s = reduced.n, np.square(reduced.singular_values)
    scale = float(s.mean())
    s = (s / scale)[:, None]
    z2 = np.square(reduced.projections)
    # With as many directions as rows nothing lies outside them but rounding.
    outside = np.zeros(z2.shape[1]) if len(s) >= n else reduced.outside
    ratio, step = np.ones(z2.shape[1]), 0
    moving = np.ones(len(ratio), dtype=np.bool_)
    while moving.any() and step < MOST_STEPS:
        step += 1
        after = _next_ratio(n, s, z2[:, moving], outside[moving], ratio[moving])
        moved = np.abs(np.log(after / ratio[moving])) >= TOLERANCE
        ratio[moving] = after
        moving[moving] = moved
    # For a ratio given, the best beta has a closed form; at the fixed point it is the iteration's own.
    with np.errstate(divide="ignore"):
        beta = n / ((z2 * ratio / (s + ratio)).sum(axis=0) + outside)
        evidence = _log_evidence(n, s, ratio, beta) / n
    bound = (ratio == LEAST_RATIO) | (ratio == LARGEST_RATIO)
    return _Fixed(evidence, ratio * beta * scale, beta, ~moving, bound, step)


def _next_ratio(n: int, s: Floats, z2: Floats, outside: Floats, ratio: Floats) -> Floats:
    """Return alpha / beta after one step: alpha = gamma / |m|^2, beta = (n - gamma) / |F m - y|^2."""
    tiny = np.finfo(np.float64).tiny
    gamma = (s / (s + ratio)).sum(axis=0)
    m2 = (s * z2 / np.square(s + ratio)).sum(axis=0)
    residual = (np.square(ratio / (s + ratio)) * z2).sum(axis=0) + outside
    # n - gamma as a sum of positive terms: near a perfect fit the difference would cancel.
    free = n - len(s) + (ratio / (s + ratio)).sum(axis=0)
    after = gamma * residual / np.maximum(m2 * free, tiny)
    return np.asarray(np.clip(after, LEAST_RATIO, LARGEST_RATIO))


def _log_evidence(n: int, s: Floats, ratio: Floats, beta: Floats) -> Floats:
    """Return (K,) log density of y ~ N(0, F F' / alpha + I / beta), beta being the best for the ratio."""
    return np.asarray(-0.5 * (n * np.log(2 * np.pi) + np.log1p(s / ratio).sum(axis=0) - n * np.log(beta) + n))
