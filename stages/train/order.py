"""Which images a step sees, and the random numbers of their crops; a pure function of (seed, step).

The order is a stream of seeded permutations, cut into batches: every image appears once an epoch. A batch
may straddle two epochs, so that every batch is full; a set smaller than a batch is gone through several
times within one. A resumed job sees what the uninterrupted one saw, with no state to save.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.train.augment import DRAWS

_ORDER, _CROPS = 0, 1


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.intp]:
    """Return the order of an epoch, (n,)."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(n)


def rows_of_step(seed: int, step: int, n: int, batch_size: int) -> NDArray[np.intp]:
    """Return the rows that a step trains on, (batch_size,).

    Examples
    --------
    >>> sorted(int(i) for s in range(3) for i in rows_of_step(0, s, n=6, batch_size=2))
    [0, 1, 2, 3, 4, 5]
    """
    first, stop = step * batch_size, (step + 1) * batch_size
    epochs = range(first // n, (stop - 1) // n + 1)
    stream = np.concatenate([permutation(seed, epoch, n) for epoch in epochs])
    offset = first - epochs[0] * n
    return stream[offset : offset + batch_size]


def draws_of_step(seed: int, step: int, batch_size: int) -> NDArray[np.float64]:
    """Return the uniform numbers of a step's crops, (batch_size, DRAWS)."""
    return np.random.default_rng((seed, _CROPS, step)).random((batch_size, DRAWS))
