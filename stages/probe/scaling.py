"""Columns to variance 1 over the rows that are fitted: an option, the protocol's default is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from stages.probe.basis import STREAM_BYTES
from stages.probe.losses import row_blocks
from stages.probe.rows import Rows

Array = NDArray[Any]
Scaling = Literal["none", "standardise"]
SCALINGS: tuple[str, ...] = get_args(Scaling)


def scaled(features: Array, fitted: Array) -> tuple[Array, NDArray[np.float64]]:
    """Return features times one factor a column, and the factors.

    Parameters
    ----------
    features
        (n, d), or `Rows`.
    fitted
        (n,) bool: the rows the factors are taken from; the others never leak into them.

    Returns
    -------
    Rows, ndarray
        (n, d) float64, computed where they are read, and (d,); a column that is constant over the fitted
        rows keeps its scale.
    """
    first = int(np.argmax(fitted))
    origin = features[first : first + 1].astype(np.float64)  # a constant column's variance is then exactly 0
    mean = sum(block.sum(axis=0) for block in _fitted_blocks(features, fitted, origin)) / fitted.sum()
    squares = sum(np.square(block).sum(axis=0) for block in _fitted_blocks(features, fitted, origin + mean))
    deviation = np.sqrt(squares / fitted.sum())
    factors = 1 / np.where(deviation > 0, deviation, 1)
    return cast(Any, Rows([features], factors)), factors


def _fitted_blocks(features: Array, fitted: Array, origin: Array) -> Iterator[Array]:
    """Yield the rows that are fitted, less an origin, a bounded number at a time."""
    n, d = features.shape
    for rows in row_blocks(n, 8 * d, STREAM_BYTES):
        yield features[rows][fitted[rows]] - origin
