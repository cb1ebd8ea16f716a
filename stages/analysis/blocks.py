"""Rows of a table a block at a time: a memory-mapped table is never read whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

BLOCK_ROWS = 4096


def blocks(
    features: Array,
    rows: NDArray[np.intp] | None = None,
    *,
    size: int = BLOCK_ROWS,
    dtype: DTypeLike | None = np.float64,
) -> Iterator[tuple[NDArray[np.intp], Array]]:
    """Yield consecutive rows, as positions and values.

    Parameters
    ----------
    features
        (n, d), anything of which slices can be read.
    rows
        Positions wanted, ascending; None = all.
    size
        Rows of the table that one block spans.
    dtype
        Of the values handed out; None = as stored.

    Yields
    ------
    positions, values
        (b,) and (b, d), b between 1 and ``size``.
    """
    for start in range(0, len(features), size):
        stop = min(start + size, len(features))
        if rows is None:
            yield np.arange(start, stop), np.asarray(features[start:stop], dtype=dtype)
            continue
        low, high = np.searchsorted(rows, (start, stop))
        if low < high:
            wanted = rows[low:high]
            yield wanted, np.asarray(features[start:stop])[wanted - start].astype(dtype, copy=False)
