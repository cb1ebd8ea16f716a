"""Are two trained models' test scores really different? Exchange their predictions and see.

All tests are two-sided on the difference of the data set's own metric, under the hypothesis that the two
models' predictions for an image could be exchanged (protocol, "Statistics").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ENOUGH_HITS = 200
"""Where a p-value is that large, more draws would not change what anybody does: 7 % relative error."""
_SLACK = 1e-12
"""Differences this close are ties: sums of the same fractions in another order."""


def mcnemar(right_a: Array, right_b: Array) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Parameters
    ----------
    right_a, right_b : ndarray of bool, shape (n,)
        Whether each model got each image right.

    Returns
    -------
    float
        Binomial(discordant, 1/2) at least as far from the middle; 1 where no image is discordant.

    Examples
    --------
    >>> a = np.array([1, 1, 1, 1, 1, 1, 0], dtype=bool)
    >>> mcnemar(a, np.zeros(7, dtype=bool))
    0.03125
    """
    from scipy.stats import binomtest

    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def per_class_exchange(
    right_a: Array, right_b: Array, labels: Array, *, draws: int, seed: int
) -> tuple[float, int]:
    """Return p-value and draws made of the exchange test on mean per-class accuracy.

    Exchanging the predictions of a discordant image moves 1/n_k from one model to the other: the sum of
    such moves within class k is a Binomial(discordant_k, 1/2), drawn for each class at once.

    Parameters
    ----------
    right_a, right_b : ndarray of bool, shape (n,)
    labels : ndarray of int, shape (n,)
        Classes without a row do not enter.
    draws : int
        At most; fewer where 200 draws have reached the observed difference (Besag and Clifford 1991).
    seed : int
    """
    classes, which, totals = np.unique(labels, return_inverse=True, return_counts=True)
    only_a = np.bincount(which[right_a & ~right_b], minlength=len(classes))
    only_b = np.bincount(which[right_b & ~right_a], minlength=len(classes))
    discordant = only_a + only_b
    observed = abs(float(((only_a - only_b) / totals).sum()))

    def draw(rng: np.random.Generator, size: int) -> Array:
        gained = rng.binomial(discordant, 0.5, size=(size, len(classes)))
        return np.asarray(np.abs(((2 * gained - discordant) / totals).sum(axis=1)))

    return sequential(draw, observed, draws=draws, seed=seed, batch=max(1, 400_000 // len(classes)))


def sequential(
    draw: Callable[[np.random.Generator, int], Array],
    observed: float,
    *,
    draws: int,
    seed: int,
    batch: int,
) -> tuple[float, int]:
    """Return a Monte Carlo p-value and the draws it took.

    Stops with the draw that makes the 200th hit (a draw at least as large as what was observed): then
    p = hits / draws, which is (1 + hits) / (1 + draws) of the draws before it; else p is that of all.
    """
    rng = np.random.default_rng(seed)
    hits = done = 0
    while done < draws:
        size = min(batch, draws - done)
        hit = np.cumsum(draw(rng, size) >= observed - _SLACK)
        if hits + int(hit[-1]) >= ENOUGH_HITS:
            last = done + int(np.searchsorted(hit, ENOUGH_HITS - hits)) + 1
            return ENOUGH_HITS / last, last
        hits, done = hits + int(hit[-1]), done + size
    return (1 + hits) / (1 + done), done
