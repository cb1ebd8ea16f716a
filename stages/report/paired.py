"""Two backbones over all data sets: the paired t-test, data sets as a sample of data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from stages.report.logodds import SAME, alike
from stages.report.pairwise import LEVEL, holm


@dataclass(frozen=True)
class PairedTest:
    """First backbone minus second, in log odds, over the data sets that both have."""

    first: str
    second: str
    datasets: int
    mean: float
    """Mean difference in log odds."""
    interval: tuple[float, float] | None
    """95 %, t with datasets - 1 degrees of freedom."""
    p_value: float | None
    """Two-sided; None where all differences are equal and not zero, or both scores are always equal."""
    p_holm: float | None
    """Holm's correction over the pairs of the regime that have a p-value."""


def paired_tests(wide: pd.DataFrame) -> list[PairedTest]:
    """Test every two backbones that share three data sets or more.

    Parameters
    ----------
    wide : DataFrame
        Backbones x data sets, log odds, NaN where there is no score.

    Returns
    -------
    list of PairedTest

    Notes
    -----
    Paired t-test, df = D - 1, data sets as random, D >= 3: protocol, "Statistics" [M].
    """
    found = []
    values = wide.to_numpy(dtype=float)
    for i, j in combinations(range(len(wide)), 2):
        difference = values[i] - values[j]
        difference = difference[np.isfinite(difference)]
        if len(difference) >= 3:
            found.append(_test(str(wide.index[i]), str(wide.index[j]), difference))
    defined = [test.p_value for test in found if test.p_value is not None]
    corrected = iter(holm(defined))
    return [
        test if test.p_value is None else PairedTest(**{**test.__dict__, "p_holm": float(next(corrected))})
        for test in found
    ]


def close_to_best_mean(
    tests: Iterable[PairedTest], means: Mapping[str, float]
) -> tuple[str | None, list[str] | None]:
    """Return the backbone with the highest mean, and those that the data sets cannot tell from it.

    Parameters
    ----------
    tests : iterable of PairedTest
        Of one regime.
    means : mapping of str to float
        Mean log odds of each backbone that has one.

    Returns
    -------
    tuple of str or None and list of str or None
        The best (None without two means), and every backbone, the best among them, whose raw p against the
        best exceeds 0.05, or which equals it on every data set, or which is ahead of it (`ahead_of_mean`);
        None where no other mean was tested against it.
    """
    tests = list(tests)
    if len(means) < 2:
        return None, None
    best = max(means, key=lambda name: means[name])
    against = {t.second if t.first == best else t.first: t for t in tests if best in (t.first, t.second)}
    if not set(against) & set(means):
        return best, None
    ahead = ahead_of_mean(best, tests)
    return best, [n for n in means if n in (best, *ahead) or (n in against and _undecided(against[n]))]


def ahead_of_mean(best: str | None, tests: Iterable[PairedTest]) -> list[str]:
    """Return the backbones significantly ahead of the best mean on the data sets that both have.

    With gaps, means are over other data sets than a test: the additive model links backbones through third
    ones, and a backbone that lacks a data set may have no mean.
    """
    found = [(t.second, t) if t.first == best else (t.first, t) for t in tests if best in (t.first, t.second)]
    return [name for name, t in found if not _undecided(t) and (t.mean < 0) == (t.first == best)]


def _undecided(test: PairedTest) -> bool:
    """Whether the test cannot tell the two apart; where it has no p-value, whether they are equal."""
    return abs(test.mean) <= SAME if test.p_value is None else test.p_value > LEVEL


def _test(first: str, second: str, difference: np.ndarray[tuple[int], np.dtype[np.float64]]) -> PairedTest:
    """One pair, before the correction."""
    from scipy import stats

    mean = float(difference.mean())
    if alike(difference):
        return PairedTest(first, second, len(difference), mean, None, None, None)
    test = stats.ttest_1samp(difference, 0.0)
    bounds = test.confidence_interval(0.95)
    interval = float(bounds.low), float(bounds.high)
    p_value = float(test.pvalue)
    return PairedTest(first, second, len(difference), mean, interval, p_value, p_value)
