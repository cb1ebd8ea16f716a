"""The cheap read-outs of cached features, side by side with what a probe says of the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.class_means import nearest_class_mean
from stages.analysis.neighbours import k_nearest_neighbours
from stages.analysis.ridge_regression import ridge
from stages.analysis.selection import ReadOut
from stages.records import FeatureTable, Metric

READOUTS = ("k_nearest_neighbours", "nearest_class_mean", "ridge")


def read_out(
    train: FeatureTable, test: FeatureTable, metric: Metric, *, fold: NDArray[np.integer[Any]] | None = None
) -> tuple[ReadOut, ...]:
    """Run every read-out that the labels allow, at its defaults.

    Parameters
    ----------
    train : FeatureTable
        All rows that may be fitted: train + validation where there is a validation split, in one table.
    test : FeatureTable
        Scored once by each.
    metric : {"top_1", "mean_per_class", "map_11_point"}
        The data set's own.
    fold : ndarray of int, shape (n,), optional
        Which rows choose k and the strength of ridge, -1 = fitted on in every fold: the ``folds`` of the
        `ProbeResult` beside it makes them comparable.

    Returns
    -------
    tuple of ReadOut
        Neighbours by cosine, the nearest class mean (not for multi-label data), ridge.

    Raises
    ------
    InputError
        Tables that do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(40) % 2
    >>> rows = np.stack([labels, 1.0 - labels], axis=1) + np.linspace(0, 0.1, 40)[:, None]
    >>> table = FeatureTable(rows, labels, tuple("a" * i for i in range(40)), ("cat", "dog"))
    >>> [(found.name, found.value) for found in read_out(table, table, "top_1")]
    [('k_nearest_neighbours', 1.0), ('nearest_class_mean', 1.0), ('ridge', 1.0)]
    """
    found = [k_nearest_neighbours(train, test, metric, fold=fold)]
    if not train.multi_label:
        found.append(nearest_class_mean(train, test, metric))
    return (*found, ridge(train, test, metric, fold=fold))


def together(first: FeatureTable, second: FeatureTable) -> FeatureTable:
    """Return the rows of two splits as one table: train + validation.

    The features are copied: both together must fit in memory. Rows without a group or an image hash, where
    the other table has them, join no other row.
    """

    def both(a: tuple[str, ...] | None, b: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if a is None and b is None:
            return None
        return (a or ("",) * len(first.ids)) + (b or ("",) * len(second.ids))

    return FeatureTable(
        features=np.concatenate([np.asarray(first.features), np.asarray(second.features)]),
        labels=np.concatenate([first.labels, second.labels]),
        ids=first.ids + second.ids,
        class_names=first.class_names,
        groups=both(first.groups, second.groups),
        image_sha256=both(first.image_sha256, second.image_sha256),
    )
