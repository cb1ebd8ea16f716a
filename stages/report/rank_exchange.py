"""The exchange test on 11-point mAP, fast enough to be drawn a hundred thousand times.

Exchanging two models' predictions of some images mixes two rankings. In a mixed ranking, the images above
a place are those that stayed and stood above it in the one, and those exchanged that stood above it in the
other: two running sums serve both models and every label, and nothing but the positives is sorted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.exchange import sequential

Array = NDArray[Any]


def rank_exchange(
    labels: Array, scores_a: Array, scores_b: Array, *, draws: int, seed: int
) -> tuple[float, int]:
    """Return p-value and draws made of the exchange test on 11-point mAP.

    What is exchanged is an image's **ranks** under every label, not its scores: two models' scores need
    not have the same scale. Where an exchanged rank meets a rank that stayed, a coin decides.

    Parameters
    ----------
    labels : ndarray of shape (n, K)
        1, 0 and -1; ignored pairs are in no ranking.
    scores_a, scores_b : ndarray of shape (n, K)
    draws : int
        At most; fewer where 200 draws have reached the observed difference (Besag and Clifford 1991).
    seed : int
    """
    rankings = Rankings(labels, scores_a, scores_b)
    rows = len(labels)
    observed = abs(rankings.difference(np.zeros(rows, dtype=bool), 0))

    def draw(rng: np.random.Generator, size: int) -> Array:
        swaps = rng.integers(0, 2, size=(size, rows), dtype=np.int8).astype(bool)
        coins = rng.integers(0, 2, size=size)
        pairs = zip(swaps, coins, strict=True)
        return np.abs([rankings.difference(swap, int(coin)) for swap, coin in pairs])

    return sequential(draw, observed, draws=draws, seed=seed, batch=64)


class Rankings:
    """Two models' rankings under every label that has a positive, laid end to end.

    A ranking's places are 0 (best), 1, 2, ...; equal scores keep the order of the rows, as the metric does.

    Parameters
    ----------
    labels : ndarray of shape (n, K)
        1, 0 and -1.
    scores_a, scores_b : ndarray of shape (n, K)
    """

    def __init__(self, labels: Array, scores_a: Array, scores_b: Array) -> None:
        columns = [k for k in range(labels.shape[1]) if (labels[:, k] == 1).any()]
        kept = [np.flatnonzero(labels[:, k] >= 0) for k in columns]
        starts = np.cumsum([0, *[len(rows) for rows in kept]])
        orders_a = [
            rows[np.argsort(-scores_a[rows, k], kind="stable")] for k, rows in zip(columns, kept, strict=True)
        ]
        orders_b = [
            rows[np.argsort(-scores_b[rows, k], kind="stable")] for k, rows in zip(columns, kept, strict=True)
        ]
        positives = [np.flatnonzero(labels[:, k] == 1) for k in columns]
        self.order_a, self.order_b = np.concatenate(orders_a), np.concatenate(orders_b)
        self.positives = np.concatenate(positives)
        counts = np.array([len(rows) for rows in positives])
        self.label = np.repeat(np.arange(len(columns)), counts)
        self.start = starts[:-1][self.label]
        self.place_a = np.concatenate(_places(orders_a, positives, len(labels)))
        self.place_b = np.concatenate(_places(orders_b, positives, len(labels)))
        self.nth = np.arange(1, len(self.label) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
        needed = np.maximum(-(-np.arange(11)[:, None] * counts // 10), 1) - 1
        self.first = (np.cumsum(counts) - counts + needed).ravel()
        self.stride = 2 * int(starts[-1]) + 2

    def difference(self, swap: Array, coin: int) -> float:
        """Return mAP of the first ranking minus that of the second after an exchange.

        Parameters
        ----------
        swap : ndarray of bool, shape (n,)
            The images whose ranks the two models exchange.
        coin : int
            Whose image goes first where both have one on a place: 0 = the first model's.
        """
        above_a = np.concatenate([[0], np.cumsum(swap[self.order_a], dtype=np.int64)])
        above_b = np.concatenate([[0], np.cumsum(swap[self.order_b], dtype=np.int64)])
        swapped = swap[self.positives]
        key_a, key_b = 2 * self.place_a + coin, 2 * self.place_b + (1 - coin)
        first = self._map(np.where(swapped, key_b, key_a), above_a, above_b, coin, True)
        second = self._map(np.where(swapped, key_a, key_b), above_a, above_b, coin, False)
        return first - second

    def _map(self, keys: Array, above_a: Array, above_b: Array, coin: int, first: bool) -> float:
        """Mean average precision of the positives at these keys (twice the place, and the coin)."""
        keys = np.sort(keys + self.stride * self.label) - self.stride * self.label
        upto_a = (keys - coin) // 2 + 1  # how many of the first model's places lie at or above the key
        upto_b = (keys - (1 - coin)) // 2 + 1
        exchanged_a = above_a[self.start + upto_a] - above_a[self.start]
        exchanged_b = above_b[self.start + upto_b] - above_b[self.start]
        above = upto_a - exchanged_a + exchanged_b if first else upto_b - exchanged_b + exchanged_a
        lift = 2.0 * (self.label[-1] - self.label)  # keeps the running maximum within a label
        precision = self.nth / above + lift
        best = np.maximum.accumulate(precision[::-1])[::-1] - lift
        return float(best[self.first].mean())


def _places(orders: list[Array], positives: list[Array], rows: int) -> list[Array]:
    """The places of the positives in each ranking."""
    found = []
    for order, positive in zip(orders, positives, strict=True):
        place = np.empty(rows, dtype=np.int64)
        place[order] = np.arange(len(order))
        found.append(place[positive])
    return found
