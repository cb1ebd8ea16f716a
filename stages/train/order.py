"""Which images a step sees: a stream of seeded permutations, cut into batches.

Every image appears once an epoch. A batch may straddle two epochs, so that every batch is full: a set
smaller than a batch is gone through several times within one, and there is no partial batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ORDER, _CROPS = 0, 1


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.intp]:
    """Return the order of an epoch, (n,)."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(n)


def rows_of_step(seed: int, step: int, n: int, batch_size: int) -> NDArray[np.intp]:
    """Return the rows that a step trains on, (batch_size,); a pure function of its arguments.

    Examples
    --------
    >>> sorted(int(i) for s in range(3) for i in rows_of_step(0, s, n=6, batch_size=2))
    [0, 1, 2, 3, 4, 5]
    """
    first = step * batch_size
    parts: list[NDArray[np.intp]] = []
    while batch_size > 0:
        epoch, offset = divmod(first, n)
        parts.append(permutation(seed, epoch, n)[offset : offset + batch_size])
        first += len(parts[-1])
        batch_size -= len(parts[-1])
    return np.concatenate(parts)


def generator_of_step(seed: int, step: int) -> np.random.Generator:
    """Return the generator that a step's crops are drawn from."""
    return np.random.default_rng((seed, _CROPS, step))
