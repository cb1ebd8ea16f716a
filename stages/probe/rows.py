"""Features that are read a block at a time: of several tables, one below the other, each column scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Rows of arrays of one width; takes the place of an (n, d) array wherever slices of rows are read.

    Nothing is copied but the slice that is asked for: features larger than memory stay where they are mapped.

    Parameters
    ----------
    parts : sequence of ndarray
        (n_i, d) floating.
    factors : ndarray, optional
        (d,) float64, one for each column; a slice is then float64.

    Examples
    --------
    >>> rows = Rows([np.zeros((2, 3), np.float32), np.ones((4, 3), np.float32)])
    >>> rows.shape, rows[1:3].tolist()
    ((6, 3), [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    """

    parts: Sequence[Array]
    factors: NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return sum(len(part) for part in self.parts), self.parts[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        found, first = [], 0
        for part in self.parts:
            low, high = max(start - first, 0), min(stop - first, len(part))
            if low < high:
                found.append(part[low:high])
            first += len(part)
        block = found[0] if len(found) == 1 else np.concatenate(found or [self.parts[0][:0]])
        return block if self.factors is None else block * self.factors
