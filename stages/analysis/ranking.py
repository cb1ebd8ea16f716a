"""How well a cheap score would have chosen among backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_BACKBONES = 4
"""For a rank correlation (protocol, "Other experiments")."""


_TITLES = {
    "logme": "LogME",
    "leep": "LEEP",
    "h_score": "H-score",
    "shrinkage_h_score": "shrinkage H-score",
    "imagenet_top1": "ImageNet top-1",
}


def score_title(name: str) -> str:
    """Return what a score that backbones are chosen by is called in text.

    Examples
    --------
    >>> score_title("logme"), score_title("nearest_class_mean")
    ('LogME', 'nearest class mean')
    """
    return _TITLES.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class Ranking:
    """One score against the log odds that the backbones reached, on one data set."""

    dataset: str
    score: str
    """Name of the score or read-out."""
    target: str
    """What it should have predicted: "fine_tune", ..."""
    backbones: tuple[str, ...]
    """That have both, sorted."""
    left_out: tuple[str, ...]
    """That lack one of the two, or have it without a finite value."""
    kendall: float | None
    """tau-b; None below four backbones or without variation."""
    weighted_kendall: float | None
    """Vigna 2015, hyperbolic weights: exchanges near the top weigh more. LogME's paper uses it."""
    spearman: float | None
    chosen: tuple[str, ...]
    """The backbones with the highest score; several where they tie."""
    best: tuple[str, ...]
    """The backbones with the highest log odds."""
    regret: float | None
    """Log odds of the best minus those of the chosen (their mean where several tie), at least 0; None below
    two backbones."""
    reason: str = ""
    """Why there is no correlation; empty where there is one."""


def rank_agreement(
    scores: Mapping[str, float | None],
    log_odds: Mapping[str, float | None],
    *,
    dataset: str = "",
    score: str = "",
    target: str = "",
) -> Ranking:
    """Compare a score with the log odds that backbones reached.

    Parameters
    ----------
    scores : mapping of backbone to float or None
        The larger the better; fractions, log odds or any other scale: ranks alone count.
    log_odds : mapping of backbone to float or None
        Log odds on test of what the score should predict.
    dataset, score, target : str
        Names, kept in the answer.

    Returns
    -------
    Ranking

    Notes
    -----
    Rank correlations from four backbones on; with fewer, or where all scores or all log odds are equal, the
    regret alone is told (protocol, "Other experiments").

    Examples
    --------
    >>> found = rank_agreement({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 0.1, "b": 0.2, "c": 0.9, "d": 0.8})
    >>> found.chosen, round(found.regret, 3), round(found.kendall, 3)
    (('d',), 0.1, 0.667)
    """
    names = sorted(set(scores) | set(log_odds))
    kept = [name for name in names if _finite(scores.get(name)) and _finite(log_odds.get(name))]
    x = np.array([scores[name] for name in kept], dtype=np.float64)
    y = np.array([log_odds[name] for name in kept], dtype=np.float64)
    taus, reason = _correlations(x, y)
    chosen = [kept[i] for i in np.flatnonzero(x == x.max())] if kept else []
    best = [kept[i] for i in np.flatnonzero(y == y.max())] if kept else []
    regret = float((y.max() - y[x == x.max()]).mean()) if len(kept) > 1 else None
    return Ranking(
        dataset=dataset,
        score=score,
        target=target,
        backbones=tuple(kept),
        left_out=tuple(name for name in names if name not in kept),
        kendall=taus[0],
        weighted_kendall=taus[1],
        spearman=taus[2],
        chosen=tuple(chosen),
        best=tuple(best),
        regret=regret,
        reason=reason,
    )


def _finite(value: float | None) -> bool:
    """Whether there is a value that can be ranked."""
    return value is not None and math.isfinite(value)


def _correlations(
    x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]
) -> tuple[tuple[float | None, float | None, float | None], str]:
    """Return Kendall's, weighted Kendall's and Spearman's coefficient, or why there are none."""
    from scipy import stats

    if len(x) < FEWEST_BACKBONES:
        return (None, None, None), f"{len(x)} backbones: rank correlations need {FEWEST_BACKBONES}"
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        same = "score" if np.ptp(x) == 0 else "result"
        return (None, None, None), f"all backbones have the same {same}"
    found = (stats.kendalltau(x, y), stats.weightedtau(x, y), stats.spearmanr(x, y))
    return (float(found[0].statistic), float(found[1].statistic), float(found[2].statistic)), ""
