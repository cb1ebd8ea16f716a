"""The joined table -> every figure that the report states, as one JSON-ready mapping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.records import Regime
from stages.report.advice import advice
from stages.report.averages import Averages, MissingRule, averages
from stages.report.comparison import compare_regimes
from stages.report.correlation import Correlation, correlate
from stages.report.dictionary import COLUMNS, DEFINITIONS, DICTIONARY
from stages.report.logodds import fraction, log_odds
from stages.report.paired import PairedTest, ahead_of_mean, close_to_best_mean, paired_tests
from stages.report.pairwise import PairTest, ahead_of, ties_with_best
from stages.report.resampling import DRAWS, bootstrap, leave_one_out
from stages.report.table import TransferTable

Values = NDArray[np.floating[Any]]

SCHEMA = 1
"""Of statistics.json; raised whenever a key changes its meaning."""


def statistics(
    table: TransferTable,
    *,
    pairs: Sequence[PairTest] = (),
    missing: MissingRule = "complete_backbones",
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the statistics of a table (protocol, "Statistics").

    Parameters
    ----------
    table : TransferTable
    pairs : sequence of PairTest
        What :func:`stages.report.pairwise.test_pairs` found; without it nothing is said of single data
        sets' differences.
    missing : {"complete_backbones", "additive_model"}
        How the means over data sets treat cells without a score.
    draws, seed : int
        Of the bootstrap over backbones.

    Returns
    -------
    dict
        Plain dicts, lists, strings, booleans, integers and finite floats, None for what is not defined;
        its keys are explained under ``"dictionary"``.

    Examples
    --------
    >>> from stages.report.join import join_scores
    >>> statistics(join_scores([]))["regimes"]
    {}
    """
    parts = [_Regime(table, regime, pairs, missing, draws, seed) for regime in table.regimes]
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "definitions": DEFINITIONS,
        "cells": table.counts(),
        "imagenet_top1": dict(table.imagenet_top1),
        "regimes": {part.regime: part.found() for part in parts},
        "regime_comparisons": [{**asdict(c), "text": c.text()} for c in compare_regimes(table)],
        "pairs": [asdict(pair) for pair in pairs],
        "notes": list(table.notes),
        "dictionary": DICTIONARY,
        "scores_columns": COLUMNS,
    }
    found["advice"] = advice(table, found)
    return {key: plain(value) for key, value in found.items()}


@dataclass(frozen=True)
class _Regime:
    """One regime's share of the statistics."""

    table: TransferTable
    regime: Regime
    pairs: Sequence[PairTest]
    missing: MissingRule
    draws: int
    seed: int

    def found(self) -> dict[str, Any]:
        """Everything that is stated about the regime."""
        wide = self.table.matrix(self.regime).loc[list(self.table.in_regime(self.regime)[0])]
        over = averages(wide, self.missing)
        tests = paired_tests(wide)
        left_out = [str(name) for name in wide.index if name not in over.means.index]
        return {
            "rule": over.rule,
            "datasets": over.datasets,
            "means": _means(over),
            "left_out": left_out,
            "correlation": self._overall(over, tests, left_out),
            "per_dataset": {str(name): self._dataset(wide[name].dropna()) for name in wide.columns},
            "paired_t_tests": [asdict(test) for test in tests],
        }

    def _overall(
        self, over: Averages, tests: Sequence[PairedTest], left_out: Sequence[str]
    ) -> dict[str, Any]:
        """The correlation with the mean over data sets, the best mean, and those that tie with it."""
        found, x, y = self._correlation(over.means)
        if len(over.datasets) < 2:
            found = Correlation(found.models, "not defined", "fewer than 2 data sets")
        if found.verdict != "defined" and left_out:
            found = replace(found, reason=_with_gaps(found.reason, over, left_out))
        best, kept = close_to_best_mean(tests, {str(n): float(v) for n, v in over.means.items()})
        told = {**asdict(found), "text": found.text(), "best": best, "ties_with_best": kept}
        told["not_tested"] = _not_tested(best, over.means.index, tests)
        told["ahead_of_best"] = ahead_of_mean(best, tests)
        told |= {"bootstrap": None, "leave_one_dataset_out": None}
        if found.verdict != "defined":
            return told
        told["bootstrap"] = bootstrap(x, y, draws=self.draws, seed=self.seed)
        without = over.without_each()
        if without is not None:
            rest = without.loc[[name for name in without.index if self._top1(name) is not None]]
            told["leave_one_dataset_out"] = leave_one_out(x, rest.to_numpy(dtype=float), list(rest.columns))
        return told

    def _dataset(self, column: pd.Series[float]) -> dict[str, Any]:
        """The correlation on one data set, its best backbone, and those that tie with it."""
        found, x, y = self._correlation(column)
        told = {
            **asdict(found),
            "text": found.text(),
            "best": None,
            "ties_with_best": None,
            "not_tested": [],
            "ahead_of_best": [],
            "tested_seeds": [],
            "bootstrap": None,
        }
        if found.verdict == "defined":
            told["bootstrap"] = bootstrap(x, y, draws=self.draws, seed=self.seed)
        if len(column):
            values = {str(name): float(value) for name, value in column.items()}
            tests = [t for t in self.pairs if t.regime == self.regime and t.dataset == column.name]
            best, kept = ties_with_best(tests, values)
            tested = any(best in (test.first, test.second) for test in tests)
            told |= {"best": best, "ties_with_best": kept if tested else None}
            told["not_tested"] = _not_tested(best, column.index, tests)
            told["ahead_of_best"] = ahead_of(best, tests)
            told["tested_seeds"] = self._tested_seeds(best, str(column.name), tests)
        return told

    def _tested_seeds(self, best: str, dataset: str, tests: Sequence[PairTest]) -> list[int]:
        """Which seeds stand for the backbones in the tests against the best, where a score is over several."""
        cells = self.table.cells
        here = cells[(cells["regime"] == self.regime) & (cells["dataset"] == dataset)]
        if not (here["seeds_complete"] > 1).any():
            return []
        seeds = {seed for t in tests if best in (t.first, t.second) for seed in (t.first_seed, t.second_seed)}
        return sorted(seed for seed in seeds if seed is not None)

    def _top1(self, name: object) -> float | None:
        """A backbone's ImageNet top-1."""
        return self.table.imagenet_top1.get(str(name))

    def _correlation(self, y: pd.Series[float]) -> tuple[Correlation, Values, Values]:
        """Log odds against logit ImageNet top-1, over the backbones that have both, and those numbers."""
        both = y[[name for name in y.index if self._top1(name) is not None]]
        x = log_odds([self._top1(name) or np.nan for name in both.index])
        values = both.to_numpy(dtype=float)
        found = correlate(x, values)
        if found.verdict != "defined" and len(both) < len(y):
            found = replace(found, reason=f"{found.reason} with a known ImageNet top-1")
        return found, x, values


def _with_gaps(reason: str, over: Averages, left_out: Sequence[str]) -> str:
    """The reason why r is not shown, where backbones were left out of the means."""
    if over.means.empty:
        return "no backbone has a score on every data set"
    return f"{reason}; left out for gaps: {', '.join(left_out)}"


def _not_tested(
    best: str | None, names: Iterable[object], tests: Sequence[PairedTest] | Sequence[PairTest]
) -> list[str]:
    """The backbones that no test compared with the best."""
    compared = {name for t in tests if best in (t.first, t.second) for name in (t.first, t.second)}
    return [str(name) for name in names if best is not None and name != best and name not in compared]


def _means(over: Averages) -> dict[str, dict[str, float]]:
    """Mean over data sets and its bar, of each backbone that has one."""
    return {
        str(name): {
            "mean_log_odds": float(over.means[name]),
            "bar": float(over.bars[name]),
            "as_fraction": float(fraction(over.means[name])),
        }
        for name in over.means.index
    }


def plain(value: Any) -> Any:
    """Return the value in JSON's own types; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
