"""Every two models of one data set and regime: tested, corrected, and the set that ties with the best."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.errors import InputError, JoinError
from stages.metrics import evaluate
from stages.records import Metric, Progress, Regime
from stages.report.exchange import mcnemar, per_class_exchange
from stages.report.predictions import Predictions, comparable, named
from stages.report.rank_exchange import rank_exchange

DRAWS = 100_000
"""At most, of the exchange test on mean per-class accuracy (under a second)."""
MAP_DRAWS = 10_000
"""At most, of the exchange test on mAP (2 ms a draw on VOC2007's test set): p is 1/10,001 at least."""
LEVEL = 0.05


@dataclass(frozen=True)
class PairTest:
    """Two trained models on one data set, tested on their predictions."""

    dataset: str
    regime: Regime
    first: str
    second: str
    difference: float
    """Metric of the first minus that of the second, fractions."""
    test: str
    """In words: which test, on what."""
    p_value: float
    p_holm: float
    """Holm's correction over all pairs of this data set and regime."""
    draws: int
    """Made by a test that draws; 0 for an exact one."""
    first_seed: int | None = None
    second_seed: int | None = None
    """Of the trained models that were tested: of several seeds of a backbone, the lowest."""


def test_pairs(
    predictions: Iterable[Predictions],
    metrics: Mapping[str, Metric],
    *,
    draws: int = DRAWS,
    map_draws: int = MAP_DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[PairTest]:
    """Test every two models of every data set and regime.

    Parameters
    ----------
    predictions : iterable of Predictions
    metrics : mapping of str to {"top_1", "mean_per_class", "map_11_point"}
        Of each data set.
    draws, map_draws : int
        At most, of the exchange tests on mean per-class accuracy and on mAP; each stops early where its
        p-value is plainly large.
    seed : int
        Of the draws; each pair has a stream of its own, whatever the others are.
    progress : callable, optional
        Called with (pairs done, pairs, note).

    Returns
    -------
    list of PairTest
        Exact McNemar for top-1; exchange tests for mean per-class accuracy and mAP.

    Raises
    ------
    JoinError
        If models of one data set were scored on different images, the metric is not known, or scores are
        NaN or do not fit their labels.

    Notes
    -----
    They compare trained models, not architectures: another seed may decide otherwise. Source:
    protocol, "Statistics" [exchange H in kind, Holm ours].
    """
    groups = comparable(predictions)
    total = sum(len(models) * (len(models) - 1) // 2 for models in groups.values())
    found: list[PairTest] = []
    for (dataset, _), models in groups.items():
        if dataset not in metrics:
            raise JoinError(f"{dataset}: its metric is not known, so its models cannot be compared: state it")
        values = [_value(metrics[dataset], one) for one in models]
        raw = []
        for i, j in combinations(range(len(models)), 2):
            pair = models[i], models[j]
            most = map_draws if metrics[dataset] == "map_11_point" else draws
            raw.append(_tested(*pair, metrics[dataset], values[i] - values[j], most, seed))
            if progress:
                progress(len(found) + len(raw), total, f"{dataset}: {pair[0].backbone}, {pair[1].backbone}")
        corrected = holm([test.p_value for test in raw])
        found += [replace(test, p_holm=float(p)) for test, p in zip(raw, corrected, strict=True)]
    return found


def _value(metric: Metric, one: Predictions) -> float:
    """The model's score, or an error that names where its predictions come from."""
    try:
        return evaluate(metric, one.labels, one.scores)
    except InputError as error:
        raise JoinError(f"{named(one)}: {error}: move the result away and run the job again") from error


test_pairs.__test__ = False  # type: ignore[attr-defined]  # a runner that collects by name leaves it alone


def _tested(
    a: Predictions, b: Predictions, metric: Metric, difference: float, draws: int, seed: int
) -> PairTest:
    """One pair, before the correction."""
    stream = _stream(a, b, seed)
    if metric == "map_11_point":
        p_value, made = rank_exchange(_relevance(a), a.scores, b.scores, draws=draws, seed=stream)
        test = "exchange of ranks, mAP"
    else:
        right_a, right_b = (one.scores.argmax(axis=1) == one.labels for one in (a, b))
        if metric == "top_1":
            p_value, made = mcnemar(right_a, right_b), 0
            test = "exact McNemar"
        else:
            p_value, made = per_class_exchange(right_a, right_b, a.labels, draws=draws, seed=stream)
            test = "exchange per class, mean per-class accuracy"
    names = a.dataset, a.regime, a.backbone, b.backbone
    return PairTest(*names, difference, test, p_value, p_value, made, a.seed, b.seed)


def _relevance(one: Predictions) -> NDArray[Any]:
    """Labels as 1, 0 and -1 per class."""
    if one.labels.ndim == 2:
        return np.asarray(one.labels)
    return np.asarray(one.labels[:, None] == np.arange(one.scores.shape[1])).astype(np.int8)


def _stream(a: Predictions, b: Predictions, seed: int) -> int:
    """A seed of the pair's own, the same on every machine."""
    text = "\n".join([str(seed), a.dataset, a.regime, a.backbone, b.backbone])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's (1979) adjusted p-values, in the order given.

    Examples
    --------
    >>> [float(p) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def ties_with_best(tests: Iterable[PairTest], values: Mapping[str, float]) -> tuple[str, list[str]]:
    """Return the best model and the set not significantly different from it.

    Parameters
    ----------
    tests : iterable of PairTest
        Of one data set and regime.
    values : mapping of str to float
        Score of each model; the first of equal ones is the best.

    Returns
    -------
    tuple of str and list of str
        The best, and every model (the best among them) whose **raw** p against the best exceeds 0.05:
        "not significantly different from the best", which is not the same as equivalent to it. Whoever a test
        puts ahead of the best is not behind it and stays too (`ahead_of`).
    """
    tests = list(tests)
    best = max(values, key=lambda name: values[name])
    p_of = {frozenset((t.first, t.second)): t.p_value for t in tests}
    ahead = ahead_of(best, tests)
    kept = [n for n in values if n == best or n in ahead or p_of.get(frozenset((n, best)), 0.0) > LEVEL]
    return best, kept


def ahead_of(best: str, tests: Iterable[PairTest]) -> list[str]:
    """Return the models that a test puts significantly ahead of the best.

    Scores are means over seeds, tests compare the lowest seeds: they may contradict each other.
    """
    found = [
        (t.second, t.difference) if t.first == best else (t.first, -t.difference)
        for t in tests
        if best in (t.first, t.second) and t.p_value <= LEVEL
    ]
    return [name for name, difference in found if difference < 0]
