"""The joined table -> every figure that the report states, as one JSON-ready mapping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from stages.records import Regime
from stages.report.comparison import compare_regimes
from stages.report.correlation import Correlation, correlate
from stages.report.dictionary import DEFINITIONS, DICTIONARY
from stages.report.logodds import fraction, log_odds, morey_bars
from stages.report.table import TransferTable

SCHEMA = 1
"""Of statistics.json; raised whenever a key changes its meaning."""


def statistics(table: TransferTable) -> dict[str, Any]:
    """Compute the statistics of a table (protocol, "Statistics").

    Parameters
    ----------
    table : TransferTable

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
    regimes = {regime: _regime(table, regime) for regime in table.regimes}
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "definitions": DEFINITIONS,
        "cells": table.counts(),
        "imagenet_top1": dict(table.imagenet_top1),
        "regimes": regimes,
        "regime_comparisons": [{**asdict(c), "text": c.text()} for c in compare_regimes(table)],
        "notes": list(table.notes),
        "dictionary": DICTIONARY,
    }
    return {key: plain(value) for key, value in found.items()}


def _regime(table: TransferTable, regime: Regime) -> dict[str, Any]:
    """The statistics of one regime."""
    wide = table.matrix(regime)
    scored = wide.dropna(axis=1, how="all")
    complete = scored.dropna(axis=0, how="any")
    per_dataset = {name: _correlation(table, wide[name].dropna()) for name in wide.columns}
    best = {name: str(column.idxmax()) for name, column in scored.items()}
    overall = _overall(table, complete)
    return {
        "rule": _rule(table, wide, complete),
        "datasets": list(scored.columns),
        "means": _means(complete),
        "left_out": [name for name in wide.index if name not in complete.index],
        "correlation": {**asdict(overall), "text": overall.text()},
        "per_dataset": {
            name: {**asdict(found), "text": found.text(), "best": best.get(str(name))}
            for name, found in per_dataset.items()
        },
    }


def _rule(table: TransferTable, wide: pd.DataFrame, complete: pd.DataFrame) -> str:
    """How missing cells were handled, in words."""
    if not wide.isna().to_numpy().any():
        return "the table is complete"
    empty = [str(name) for name in wide.columns if wide[name].isna().all()]
    datasets = f"; data sets without any score left out: {', '.join(empty)}" if empty else ""
    return (
        "complete backbones only: the means are over the "
        f"{len(complete)} of {len(table.backbones)} backbones with a score on every data set{datasets}"
    )


def _means(complete: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Mean over data sets and its bar, of each complete backbone."""
    if complete.empty:
        return {}
    bars = morey_bars(complete.to_numpy())
    means = complete.mean(axis=1)
    return {
        str(name): {
            "mean_log_odds": float(mean),
            "bar": float(bar),
            "as_fraction": float(fraction(mean)),
        }
        for name, mean, bar in zip(complete.index, means, bars, strict=True)
    }


def _overall(table: TransferTable, complete: pd.DataFrame) -> Correlation:
    """The correlation with the mean over data sets."""
    if complete.shape[1] < 2:
        found = _correlation(table, complete.mean(axis=1))
        return Correlation(found.models, "not defined", "fewer than 2 data sets")
    return _correlation(table, complete.mean(axis=1))


def _correlation(table: TransferTable, y: pd.Series[float]) -> Correlation:
    """A column of log odds against logit ImageNet top-1, over the backbones that have both."""
    top1 = {name: value for name, value in table.imagenet_top1.items() if value is not None}
    both = y[[name for name in y.index if name in top1]]
    found = correlate(log_odds([top1[str(name)] for name in both.index]), both.to_numpy(dtype=float))
    unknown = len(y) - len(both)
    if found.verdict != "defined" and unknown:
        return replace(found, reason=f"{found.reason} with a known ImageNet top-1")
    return found


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
