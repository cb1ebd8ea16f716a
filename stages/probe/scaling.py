"""Columns to variance 1 over the rows that are fitted: an option, the protocol's default is none."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Scaling = Literal["none", "standardise"]
SCALINGS: tuple[str, ...] = get_args(Scaling)


def scaled(features: Array, fitted: Array) -> tuple[Array, NDArray[np.float64]]:
    """Return features times one factor a column, and the factors.

    Parameters
    ----------
    features
        (n, d).
    fitted
        (n,) bool: the rows the factors are taken from; the others never leak into them.

    Returns
    -------
    ndarray, ndarray
        (n, d) float32 and (d,); a column that is constant over the fitted rows keeps its scale.
    """
    deviation = features[fitted].std(axis=0, dtype=np.float64)
    factors = 1 / np.where(deviation > 0, deviation, 1)
    return (features * factors).astype(np.float32), factors
