"""Does better ImageNet accuracy go with better transfer? Correlations over models, with their limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.report.logodds import alike

Verdict = Literal["defined", "not informative", "not defined"]

FEWEST_FOR_INTERVAL = 4
"""Fisher's interval has width 1 / sqrt(models - 3)."""


@dataclass(frozen=True)
class Correlation:
    """Over models, between logit ImageNet top-1 and logit transfer accuracy."""

    models: int
    """How many entered."""
    verdict: Verdict
    """Whether people may be shown the numbers; with 3 models they exist but say nothing."""
    reason: str = ""
    """Why not "defined", in words; empty otherwise."""
    pearson: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, Fisher's z, over models, data sets fixed; from 4 models on."""
    spearman: float | None = None
    kendall: float | None = None
    """tau-b."""
    slope: float | None = None
    """Least squares, log odds of transfer per log odds of ImageNet top-1."""
    intercept: float | None = None

    def text(self) -> str:
        """Return r as people read it: with its interval, or the words that stand for it."""
        if self.verdict != "defined" or self.pearson is None:
            return f"{self.verdict} ({self.reason})"
        bounds = "" if self.interval is None else f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"
        return f"{self.pearson:.2f}{bounds}, {self.models} backbones"


def correlate(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> Correlation:
    """Correlate two variables over models.

    Parameters
    ----------
    x, y : ndarray of shape (M,)
        Log odds of ImageNet top-1 and of transfer; finite.

    Returns
    -------
    Correlation
        "not defined" with fewer than three models or without variation; "not informative" with three.

    Notes
    -----
    Pearson r [the paper, section 3], Fisher's interval from four models on [ours]: protocol, "Statistics".
    Related architectures are not independent draws, so the interval is, if anything, too narrow.

    Examples
    --------
    >>> correlate(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0])).text()
    'not informative (only 3 backbones)'
    """
    from scipy import stats

    models = len(x)
    if models < 3:
        return Correlation(models, "not defined", f"only {_plural(models, 'backbone')}")
    if alike(x) or alike(y):
        same = "ImageNet top-1" if alike(x) else "transfer accuracy"
        return Correlation(models, "not defined", f"all backbones have the same {same}")
    pearson = stats.pearsonr(x, y)
    line = stats.linregress(x, y)
    enough = models >= FEWEST_FOR_INTERVAL
    bounds = pearson.confidence_interval(0.95) if enough else None
    return Correlation(
        models=models,
        verdict="defined" if enough else "not informative",
        reason="" if enough else f"only {_plural(models, 'backbone')}",
        pearson=float(pearson.statistic),
        interval=None if bounds is None else (float(bounds.low), float(bounds.high)),
        spearman=float(stats.spearmanr(x, y).statistic),
        kendall=float(stats.kendalltau(x, y).statistic),
        slope=float(line.slope),
        intercept=float(line.intercept),
    )


def _plural(number: int, noun: str) -> str:
    """Number and noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
