"""Coordinates in which about half of the features are zero: X = L Q' with L a lower trapezoid.

With m = min(n, d) dimensions, row i of L reaches its first i + 1 columns, so that products with X cost
1 - m / (2 n) of what they would, n < d included. The map is orthogonal: norms, and with them the certificate,
are those of the features to float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[Any]

PANELS = 4
"""Strips into which a product is cut; within one the zeros are multiplied."""


def lower_trapezoid(centred: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return L (n, m) and Q' (m, d), its rows orthonormal, of (n, d) float64 features.

    Householder reflections of the first m rows; no direction is dropped, whatever the rank.
    """
    n, d = centred.shape
    m = min(n, d)
    turn, upper = scipy.linalg.qr(centred[:m].T, mode="economic", check_finite=False)
    lower = np.empty((n, m))
    lower[:m] = upper.T
    np.matmul(centred[m:], turn, out=lower[m:])
    return lower, np.ascontiguousarray(turn.T)


def row_panels(reach: Array) -> Iterator[tuple[slice, int]]:
    """Yield rows and the columns they reach, for products with weights.

    Parameters
    ----------
    reach
        (n,) columns that a row reaches, ascending.
    """
    step = -(-len(reach) // PANELS)
    for start in range(0, len(reach), step):
        rows = slice(start, min(start + step, len(reach)))
        yield rows, int(reach[rows.stop - 1])


def column_panels(reach: Array, columns: int) -> Iterator[tuple[int, slice]]:
    """Yield the first row that reaches some columns, and these columns, for products with residuals."""
    step = -(-columns // PANELS)
    for start in range(0, columns, step):
        yield int(np.searchsorted(reach, start + 1)), slice(start, min(start + step, columns))
