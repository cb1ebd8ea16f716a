"""How a read-out's one setting is chosen, and what a read-out says in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import InputError
from stages.metrics import average_precisions, class_counts, mean_per_class_from_counts, top_1_from_counts
from stages.records import FeatureTable, Metric
from stages.splitting import partition, units_of

Array = NDArray[Any]

TIE_DIGITS = 12
"""Means of average precisions that agree to so many decimals are equal (protocol, "Cross-validation")."""


@dataclass(frozen=True)
class Candidate:
    """One setting that was tried."""

    setting: float
    """k of the neighbours, or lambda of ridge."""
    value: float
    """The data set's metric on rows that were not fitted, a fraction."""


@dataclass(frozen=True)
class ReadOut:
    """A cheap classifier on cached features, its setting chosen without test, scored once on test."""

    name: str
    """"k_nearest_neighbours", "nearest_class_mean" or "ridge"."""
    metric: Metric
    value: float
    """Fraction on the test rows."""
    settings: Mapping[str, str | float]
    """What was fitted: distance and vote and k, or l2_lambda."""
    selection: tuple[Candidate, ...]
    """Every candidate in the order tried; empty where nothing was to choose."""
    selection_method: str
    """In words."""
    test_scores: NDArray[np.float64]
    """(n_test, K) the larger the likelier; no probabilities. -inf for a class without training rows."""
    n_train: int
    n_test: int
    seconds: float
    """Wall time of selection, fit and scoring."""
    warnings: tuple[str, ...] = ()


def folds_of(table: FeatureTable, count: int = 5, seed: int = 0) -> NDArray[np.int16]:
    """Return stratified folds that keep groups and byte-identical images together.

    Parameters
    ----------
    table
        n rows.
    count
        Folds.
    seed
        Of the dice.

    Returns
    -------
    ndarray of int16, shape (n,)
        Fold of each row. ``ProbeResult.folds`` has the same form and may be used in its place, so that a
        read-out is selected on the folds of the probe beside it.

    Raises
    ------
    InputError
        Less than two folds, or more folds than rows that may be torn apart.
    """
    units = units_of(len(table.labels), table.groups, table.image_sha256)
    if not 2 <= count <= len(np.unique(units)):
        raise InputError(
            f"folds = {count}: give at least 2 and no more than the {len(np.unique(units))} rows or groups"
        )
    return partition(table.labels, units, [1 / count] * count, seed=seed).astype(np.int16)


def check_fold(fold: Array, n: int) -> tuple[NDArray[np.int16], str]:
    """Return the fold of each row and the selection in words, or raise `InputError`."""
    fold = np.asarray(fold)
    if fold.shape != (n,) or not np.issubdtype(fold.dtype, np.integer) or fold.min() < -1:
        raise InputError(
            f"fold has shape {fold.shape}: give one integer for each of the {n} rows, -1 = fitted on"
        )
    names = np.unique(fold[fold >= 0])
    if not names.size or (len(names) == 1 and (fold >= 0).all()):
        raise InputError("fold leaves no rows to fit or none to validate on: give two folds, or -1 and 0")
    if len(names) == 1:
        return fold.astype(np.int16), f"validation on {int((fold >= 0).sum())} of {n} rows"
    return fold.astype(np.int16), f"{len(names)}-fold cross-validation over {int((fold >= 0).sum())} rows"


def trials(fold: NDArray[np.int16]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return (fitted rows, held rows) of each fold, ascending."""
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in np.unique(fold[fold >= 0])]


def pooled(metric: Metric, parts: Sequence[tuple[Array, Array]]) -> float:
    """Return the metric over several trials: accuracies from added counts, mAP averaged over trials and labels.

    Parameters
    ----------
    metric
        "top_1", "mean_per_class" or "map_11_point".
    parts
        (labels, scores) of each trial.

    Notes
    -----
    Source: protocol, "Cross-validation": the same rule as the probe's, so that values can be compared.
    """
    if metric == "map_11_point":
        values = np.concatenate([average_precisions(labels, scores) for labels, scores in parts])
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if defined.size else 0.0
    counts = [class_counts(labels, scores) for labels, scores in parts]
    hits, totals = sum(h for h, _ in counts), sum(t for _, t in counts)
    assert isinstance(hits, np.ndarray)
    assert isinstance(totals, np.ndarray)
    return top_1_from_counts(hits, totals) if metric == "top_1" else mean_per_class_from_counts(hits, totals)


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """Return the best candidate; of those equal to 12 digits the larger setting, which is the smoother fit."""
    return max(candidates, key=lambda c: (round(c.value, TIE_DIGITS), c.setting))
