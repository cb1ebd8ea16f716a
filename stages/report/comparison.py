"""Two regimes against each other, cell by cell, in log odds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.records import Regime
from stages.report.logodds import SAME, alike
from stages.report.table import TransferTable

PAIRS: tuple[tuple[Regime, Regime], ...] = (
    ("fine_tune", "linear_probe"),
    ("fine_tune", "from_scratch"),
    ("linear_probe", "from_scratch"),
)


@dataclass(frozen=True)
class RegimeComparison:
    """First regime minus second, over the cells that both have."""

    first: Regime
    second: Regime
    cells: int
    """Backbone x data set pairs with both values: the N of "wins of N"."""
    wins: int
    """Cells in which the first has the higher log odds."""
    ties: int
    mean: float | None
    """Mean over data sets of the mean difference over backbones, in log odds; None where no cell has both.
    Without gaps it is the mean over the cells."""
    odds_ratio: float | None
    """exp(mean): by how much the first multiplies the odds of a correct answer."""
    per_dataset: dict[str, float]
    """Mean difference over the backbones of each data set."""
    interval: tuple[float, float] | None
    """95 % t interval over the per-data-set means, data sets as random; from three data sets on."""
    p_value: float | None
    """Of the same paired t-test, two-sided, df = data sets - 1."""

    def text(self) -> str:
        """Return the comparison in one line."""
        if self.mean is None:
            return f"{self.first} against {self.second}: not defined (no cell has both)"
        bounds = "" if self.interval is None else f" [{self.interval[0]:+.2f}, {self.interval[1]:+.2f}]"
        ties = f", {self.ties} {'tie' if self.ties == 1 else 'ties'}" if self.ties else ""
        difference = f"{self.mean:+.2f} log odds{bounds}"
        return f"{self.first} minus {self.second}: {difference}, wins {self.wins} of {self.cells}{ties}"


def compare_regimes(table: TransferTable) -> list[RegimeComparison]:
    """Compare every two regimes of the table.

    Parameters
    ----------
    table : TransferTable

    Returns
    -------
    list of RegimeComparison
        One for each pair of regimes that the table has, better-known first.

    Notes
    -----
    Differences of log odds and the count of wins as in the paper's section 4.2; the paired t-test over
    data sets is graded M in the protocol, "Statistics".
    """
    return [_compare(table, a, b) for a, b in PAIRS if {a, b} <= set(table.regimes)]


def _compare(table: TransferTable, first: Regime, second: Regime) -> RegimeComparison:
    """One pair of regimes."""
    difference = table.matrix(first) - table.matrix(second)
    values = difference.to_numpy()
    found = values[np.isfinite(values)]
    means = difference.mean(axis=0).dropna()
    mean = float(means.mean()) if found.size else None
    interval, p_value = _over_datasets(means)
    return RegimeComparison(
        first=first,
        second=second,
        cells=int(found.size),
        wins=int((found > SAME).sum()),
        ties=int((np.abs(found) <= SAME).sum()),
        mean=mean,
        odds_ratio=None if mean is None else float(np.exp(mean)),
        per_dataset={str(name): float(value) for name, value in means.items()},
        interval=interval,
        p_value=p_value,
    )


def _over_datasets(means: pd.Series[float]) -> tuple[tuple[float, float] | None, float | None]:
    """The t interval and p-value of the mean over data sets; (None, None) below three or without spread."""
    from scipy import stats

    values = means.to_numpy(dtype=float)
    if len(values) < 3 or alike(values):
        return None, None
    test = stats.ttest_1samp(values, 0.0)
    bounds = test.confidence_interval(0.95)
    return (float(bounds.low), float(bounds.high)), float(test.pvalue)
