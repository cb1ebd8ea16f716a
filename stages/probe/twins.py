"""Rows that stand more than once: products with them round alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SAME_LENGTH = 1e-12
"""Relative difference of squared lengths up to which two rows may be the same row."""


@dataclass(frozen=True)
class Twins:
    """Which rows are the same: of products with them, all round alike."""

    order: NDArray[np.intp]
    """(n,) rows, those of a kind one after the other."""
    starts: NDArray[np.intp]
    """(g,) where in ``order`` each kind begins."""

    def add_up(self, values: Array) -> Array:
        """Return the sums of (n, ...) values over the rows of a kind, (g, ...)."""
        return np.asarray(np.add.reduceat(values[self.order], self.starts, axis=0))

    def first(self, values: Array) -> Array:
        """Return the value of one row of each kind, (g, ...)."""
        return np.asarray(values[self.order[self.starts]])


def find_twins(shares: NDArray[np.float64]) -> Twins | None:
    """Take rows of the same length for the same; too many of them only make an allowance larger."""
    order = np.argsort(shares, kind="stable")
    ordered = shares[order]
    begins = np.append(True, np.diff(ordered) > SAME_LENGTH * ordered[1:])
    return None if begins.all() else Twins(order, np.flatnonzero(begins))
