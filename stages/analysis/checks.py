"""What every analysis asks of a table of features before it starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.blocks import blocks
from stages.errors import InputError
from stages.records import METRICS, FeatureTable, Metric

Array = NDArray[Any]


def check_features(features: Array, what: str) -> None:
    """Raise `InputError` unless the features are (n, d) finite floats with at least one row and column."""
    if len(features.shape) != 2 or not features.shape[0] or not features.shape[1]:
        raise InputError(f"{what}: features have shape {features.shape}: give (n, d) with at least one row")
    kind = features[:1].dtype  # of tables that are read by slices alone, too
    if not np.issubdtype(kind, np.floating):
        raise InputError(f"{what}: features are {kind}: give float32, float16 or float64")
    for rows, block in blocks(features, dtype=None):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = int(rows[int(np.argmin(finite))])
            raise InputError(f"{what}: NaN or infinity, first in row {row}: extract the features again")


def check_labels(labels: Array, n: int, n_classes: int, what: str) -> None:
    """Raise `InputError` unless the labels are of one of the two kinds of ``stages.records``."""
    if len(labels) != n:
        raise InputError(f"{what}: {len(labels)} labels for {n} rows of features: give one a row")
    if labels.ndim == 2:
        if labels.shape[1] != n_classes or not np.isin(labels, (-1, 0, 1)).all():
            raise InputError(f"{what}: multi-label labels are ({n}, {n_classes}) of 1, 0 and -1 (ignore)")
    elif labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{what}: labels are {labels.dtype} {labels.shape}: give one integer a row")
    elif n and (labels.min() < 0 or labels.max() >= n_classes):
        raise InputError(f"{what}: a label lies outside the classes: give 0 to {n_classes - 1}")


def check_table(table: FeatureTable, what: str) -> None:
    """Raise `InputError` unless features and labels of a table are in order and fit each other."""
    check_features(table.features, what)
    check_labels(table.labels, len(table.features), len(table.class_names), what)


def check_pair(train: FeatureTable, test: FeatureTable, metric: Metric) -> None:
    """Raise `InputError` unless both are splits of one data set through one backbone that the metric fits."""
    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is unknown: use one of {', '.join(METRICS)}")
    check_table(train, "train")
    check_table(test, "test")
    check_widths(train.features, test.features, "train", "test")
    if train.class_names != test.class_names or train.multi_label != test.multi_label:
        raise InputError("train and test have different classes: take two splits of one data set")
    if train.multi_label and metric != "map_11_point":
        raise InputError(f"metric {metric!r} needs one label an image: use map_11_point for multi-label data")


def check_widths(first: Array, second: Array, name: str, other: str) -> None:
    """Raise `InputError` where two tables have features of different width."""
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{name} has features of {first.shape[1]} dimensions and {other} of {second.shape[1]}: "
            "compare entries of one backbone"
        )


def check_single_label(labels: Array, what: str) -> None:
    """Raise `InputError` for multi-label data, which ``what`` is not defined for."""
    if labels.ndim != 1:
        raise InputError(f"{what} needs one label an image: it is not defined for multi-label data")
