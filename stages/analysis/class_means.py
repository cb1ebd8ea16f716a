"""The nearest class mean: what is left of a classifier when nothing is fitted but means."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.blocks import blocks
from stages.analysis.checks import check_pair, check_single_label
from stages.analysis.search import Distance, unit_rows
from stages.analysis.selection import ReadOut
from stages.errors import InputError
from stages.metrics import evaluate
from stages.records import FeatureTable, Metric

Array = NDArray[Any]


def nearest_class_mean(
    train: FeatureTable, test: FeatureTable, metric: Metric, *, distance: Distance = "euclidean"
) -> ReadOut:
    """Classify by the nearest of the K class means.

    Parameters
    ----------
    train, test : FeatureTable
        Single-label splits of one data set.
    metric : {"top_1", "mean_per_class", "map_11_point"}
        The data set's own.
    distance : {"euclidean", "cosine"}
        Euclidean: means of the features as they are (Mensink et al. 2013, "Distance-based image
        classification", section 3.2, without a learnt metric). Cosine: means of the rows scaled to norm 1.

    Returns
    -------
    ReadOut
        Scores are minus squared distances, or cosines; -inf for a class without training rows.

    Raises
    ------
    InputError
        Multi-label data, for which no row belongs to one mean, or tables that do not fit each other.
    """
    started = time.perf_counter()
    check_single_label(train.labels, "the nearest class mean")
    check_pair(train, test, metric)
    if distance not in ("cosine", "euclidean"):
        raise InputError(f"distance {distance!r} is unknown: use cosine or euclidean")
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    means = _means(train, counts, distance)
    scores = np.vstack([_closeness(block, means, distance) for _, block in blocks(test.features)])
    scores[:, counts == 0] = -np.inf
    absent = [train.class_names[k] for k in np.flatnonzero(counts == 0)]
    return ReadOut(
        name="nearest_class_mean",
        metric=metric,
        value=evaluate(metric, test.labels, scores),
        settings={"distance": distance},
        selection=(),
        selection_method="nothing to choose",
        test_scores=scores,
        n_train=len(train.labels),
        n_test=len(test.labels),
        seconds=time.perf_counter() - started,
        warnings=(f"{len(absent)} classes without a training row, the first is {absent[0]!r}",)
        if absent
        else (),
    )


def _means(train: FeatureTable, counts: Array, distance: Distance) -> NDArray[np.float64]:
    """Return (K, d) class means, of norm 1 for cosines."""
    sums = np.zeros((len(counts), train.features.shape[1]))
    for rows, block in blocks(train.features):
        values = unit_rows(block).astype(np.float64) if distance == "cosine" else block
        belongs = (np.arange(len(counts))[:, None] == train.labels[rows]).astype(np.float64)
        sums += belongs @ values
    means: NDArray[np.float64] = sums / np.maximum(counts, 1)[:, None]
    return unit_rows(means).astype(np.float64) if distance == "cosine" else means


def _closeness(block: Array, means: Array, distance: Distance) -> NDArray[np.float64]:
    """Return (b, K) cosines or minus squared distances."""
    if distance == "cosine":
        return np.asarray(unit_rows(block).astype(np.float64) @ means.T)
    squares = np.square(block).sum(axis=1)[:, None] + np.square(means).sum(axis=1)
    return np.asarray(2 * block @ means.T - squares)
