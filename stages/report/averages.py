"""Means over data sets where cells are missing, by one of two stated rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from stages.report.logodds import morey_bars

MissingRule = Literal["complete_backbones", "additive_model"]


@dataclass(frozen=True)
class Averages:
    """Mean log odds over data sets, one per backbone that has one."""

    means: pd.Series[float]
    bars: pd.Series[float]
    """Morey's; NaN where the table behind them is incomplete or too small."""
    datasets: tuple[str, ...]
    """What the means are over."""
    cells: pd.DataFrame
    """What they were taken from: those backbones and data sets, NaN where the rule allows for gaps."""
    rule: str
    """How missing cells were handled, in words."""

    def without_each(self) -> pd.DataFrame | None:
        """Return the means by the same rule with each data set left out in turn: backbones x what is left out.

        None where without one of them the others no longer link the same backbones, or none are left.
        """
        rest = {name: self.cells.drop(columns=[name]) for name in self.cells.columns}
        if len(rest) < 2 or any(len(_connected(part)) < len(part) for part in rest.values()):
            return None
        return pd.DataFrame({str(name): _additive(part) for name, part in rest.items()})


def averages(wide: pd.DataFrame, missing: MissingRule = "complete_backbones") -> Averages:
    """Average log odds over data sets.

    Parameters
    ----------
    wide : DataFrame
        Backbones x data sets, log odds, NaN where there is no score.
    missing : {"complete_backbones", "additive_model"}
        The first takes the backbones with a score on every data set that anybody has a score on. The
        second fits backbone + data set to the cells that exist (least squares) and states each
        backbone's value at the mean data set; on a complete table both give the same.

    Returns
    -------
    Averages
    """
    scored = wide.dropna(axis=1, how="all").dropna(axis=0, how="all")
    complete = scored.dropna(axis=0, how="any")
    bars = _bars(complete)
    means = complete.mean(axis=1)
    cells, rule = complete, "the table is complete"
    if wide.isna().to_numpy().any():
        rule = f"complete backbones only: {len(complete)} of {len(wide)} have a score on every data set"
        if not len(complete) and len(scored):
            rule += '; missing = "additive_model" in [report] would take every cell that exists'
        if missing == "additive_model":
            cells = _connected(scored)
            means, bars = _additive(cells), bars if len(complete) == len(cells) else bars * np.nan
            rule = (
                f"additive model, backbone + data set, fitted to the {int(cells.notna().to_numpy().sum())} "
                f"cells that exist; {len(cells)} of {len(wide)} backbones, no error bars"
            )
            apart = [str(name) for axis in (0, 1) for name in scored.axes[axis].difference(cells.axes[axis])]
            rule += (
                f"; not linked with them by common data sets and left out: {', '.join(apart)}"
                if apart
                else ""
            )
        empty = [str(name) for name in wide.columns if name not in scored.columns]
        rule += f"; without any score and left out: {', '.join(empty)}" if empty else ""
    datasets = tuple(str(name) for name in cells.columns)
    return Averages(means, bars.reindex(means.index), datasets, cells, rule)


def _bars(complete: pd.DataFrame) -> pd.Series[float]:
    """Morey's bars of a table without gaps."""
    values = complete.to_numpy(dtype=float)
    bars = morey_bars(values) if values.size else np.full(len(complete), np.nan)
    return pd.Series(bars, index=complete.index, dtype=float)


def _connected(scored: pd.DataFrame) -> pd.DataFrame:
    """The largest part of the table in which every two backbones are linked by common data sets."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    models = len(scored)
    rows, columns = np.nonzero(scored.notna().to_numpy())
    size = models + scored.shape[1]
    if not len(rows):
        return scored
    links = csr_matrix((np.ones(len(rows)), (rows, models + columns)), shape=(size, size))
    part = connected_components(links, directed=False)[1]
    largest = np.bincount(part[:models]).argmax()
    kept = scored.index[part[:models] == largest], scored.columns[part[models:] == largest]
    return scored.reindex(index=kept[0], columns=kept[1])


def _additive(fitted: pd.DataFrame) -> pd.Series[float]:
    """Least-squares backbone effects, at the mean of the data set effects; without gaps the mean."""
    if not fitted.isna().to_numpy().any():
        return fitted.mean(axis=1)
    models, datasets = fitted.shape
    rows, columns = np.nonzero(fitted.notna().to_numpy())
    design = np.zeros((len(rows), models + datasets))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), models + columns] = 1
    effects = np.linalg.lstsq(design, fitted.to_numpy(dtype=float)[rows, columns], rcond=None)[0]
    return pd.Series(effects[:models] + effects[models:].mean(), index=fitted.index)
