"""Images that stand twice: pairs of rows whose features point the same way, found exactly and in blocks.

Features alone propose, pixels confirm (:mod:`stages.analysis.same_picture`): cosines of different pictures
of one class reach those of copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.blocks import blocks
from stages.analysis.checks import check_features, check_widths
from stages.analysis.search import row_norms, unit_rows
from stages.errors import InputError
from stages.records import Progress

Array = NDArray[Any]

CANDIDATE_COSINE = 0.7
"""From which a pair is worth a look at its pixels; see `near_duplicates` for what it finds."""
ALONE_COSINE = 0.9
"""From which features alone count as a duplicate where no pixels are at hand."""
FIRST_ROWS, SECOND_ROWS = 2048, 4096
MOST_PAIRS = 100_000
UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows at or above a cosine, the nearest first."""

    first: NDArray[np.intp]
    """(m,) rows of the first table."""
    second: NDArray[np.intp]
    """(m,) rows of the second table; inside one table always larger than ``first``."""
    cosine: NDArray[np.float64]
    """(m,) of the features as stored, in float64."""
    threshold: float
    found: int
    """Pairs at or above the threshold: m, or more where only the nearest were kept."""
    rows: tuple[int, int]
    """Rows of both tables."""
    zero_rows: int
    """Rows of zeros, which have no direction and are in no pair."""

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: NDArray[np.bool_]) -> Pairs:
        """Return some of the pairs, such as those that the pixels confirm."""
        return Pairs(
            self.first[which],
            self.second[which],
            self.cosine[which],
            self.threshold,
            int(which.sum()),
            self.rows,
            self.zero_rows,
        )


def near_duplicates(
    first: Array,
    second: Array | None = None,
    *,
    threshold: float = CANDIDATE_COSINE,
    most_pairs: int = MOST_PAIRS,
    progress: Progress | None = None,
) -> Pairs:
    """Find every pair of rows whose cosine is at least a threshold.

    Parameters
    ----------
    first
        (n, d) features, possibly memory-mapped.
    second
        (m, d) features of the same backbone; None = look inside ``first``, each pair once.
    threshold
        On the cosine, in (0, 1].
    most_pairs
        Pairs kept; of more than that the nearest are, and ``found`` says how many there were.
    progress
        Called with (products done, all products, note) after each of 2,048 x 4,096 rows.

    Returns
    -------
    Pairs

    Raises
    ------
    InputError
        Features of different width (entries of two backbones), a threshold out of range, or values that are
        not finite.

    Notes
    -----
    Exact: products run in float32 on rows of norm 1, whose error is at most (d + 8) 2^-24 by the standard
    bound on dot products; every pair that comes within it of the threshold is computed again in float64 from
    the stored values. Memory beside the answer: one block of each table, as stored and with norm 1, and their
    product, 8 (2,048 + 4,096) d + 5 * 2,048 * 4,096 bytes in float32, 105 MB at 1,280 dimensions, whatever the
    tables' length, and 8 bytes a row of the second.

    The thresholds, measured on 1,515 photographs of Caltech-101 (15 a class) with EfficientNet-lite0 features
    and 200 copies by `made_copies`, seed 0, hidden among them: at cosine 0.7 199 of 200 are among the 1,631
    pairs found, which is what pixels are then asked about (199 at seed 1 too). Features alone at 0.9 find 170 of
    200, and 29 of the 221 pairs found are no copies of anything. Of all pairs of different photographs one in 980
    reaches 0.7. Other backbones have other cosines.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]], np.float32)
    >>> found = near_duplicates(rows, threshold=0.9)
    >>> found.first, found.second
    (array([0]), array([2]))
    """
    check_features(first, "the first table")
    if second is not None:
        check_features(second, "the second table")
        check_widths(first, second, "the first table", "the second table")
    if not 0 < threshold <= 1:
        raise InputError(f"a cosine of {threshold} as threshold: give one above 0 and at most 1")
    if most_pairs < 1:
        raise InputError(f"most_pairs = {most_pairs}: give at least 1")
    other = first if second is None else second
    kept = _Nearest(most_pairs)
    for rows, others, candidates, values in _products(
        first, other, threshold, same=second is None, progress=progress
    ):
        i, j = candidates
        cosine = _exact(values[0][i], values[1][j])
        enough = cosine >= threshold
        kept.add(rows[i[enough]], others[j[enough]], cosine[enough])
    i, j, cosine = kept.sorted()
    zeros = _zero_rows(first) + (0 if second is None else _zero_rows(second))
    return Pairs(i, j, cosine, threshold, kept.found, (len(first), len(other)), zeros)


def _products(
    first: Array, second: Array, threshold: float, *, same: bool, progress: Progress | None
) -> Iterator[tuple[Array, Array, tuple[Array, Array], tuple[Array, Array]]]:
    """Yield, block by block, the rows, the pairs that may reach the threshold, and both blocks' values."""
    cut = np.float32(threshold - (first.shape[1] + 8) * UNIT_ROUNDOFF)
    total = -(-len(first) // FIRST_ROWS) * -(-len(second) // SECOND_ROWS)
    done = 0
    # The second table is read once for every block of the first, its norms are computed once.
    norms = np.concatenate([row_norms(block) for _, block in blocks(second, dtype=None)])
    for rows, block in blocks(first, size=FIRST_ROWS, dtype=None):
        ours = unit_rows(block)
        for others, other_block in blocks(second, size=SECOND_ROWS, dtype=None):
            done += 1
            if not same or others[-1] > rows[0]:
                i, j = _candidates(ours, unit_rows(other_block, norms[others]), cut)
                if same:
                    once = rows[i] < others[j]
                    i, j = i[once], j[once]
                yield rows, others, (i, j), (block, other_block)
            if progress is not None:
                progress(done, total, "products of rows")


def _candidates(first: Array, second: Array, cut: np.float32) -> tuple[Array, Array]:
    """Return the pairs whose product is at least ``cut``; the product itself is given up before the next one."""
    product = first @ second.T
    return np.divmod(np.flatnonzero(product >= cut), product.shape[1])


def _exact(first: Array, second: Array) -> NDArray[np.float64]:
    """Return the cosines of rows with rows in float64; pairs with a row of zeros have none and give 0."""
    found = []
    for start in range(0, len(first), FIRST_ROWS):
        a = first[start : start + FIRST_ROWS].astype(np.float64)
        b = second[start : start + FIRST_ROWS].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        found.append(np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, 1))
    return np.minimum(np.concatenate(found), 1) if found else np.empty(0)


def _zero_rows(features: Array) -> int:
    """Count the rows without a direction."""
    return sum(int((~block.any(axis=1)).sum()) for _, block in blocks(features, dtype=None))


class _Nearest:
    """The nearest pairs so far; twice as many as asked for are held before the others go."""

    def __init__(self, most: int) -> None:
        self.most, self.found = most, 0
        none = np.empty(0, dtype=np.intp)
        self.parts: list[tuple[Array, Array, Array]] = [(none, none, np.empty(0))]
        self.held = 0

    def add(self, first: Array, second: Array, cosine: Array) -> None:
        """Take the pairs of one block in."""
        self.found += len(first)
        self.held += len(first)
        self.parts.append((first, second, cosine))
        if self.held > 2 * self.most:
            self.parts = [self.sorted()]
            self.held = len(self.parts[0][0])

    def sorted(self) -> tuple[Array, Array, Array]:
        """Return the nearest pairs, nearest first, then in the order of the rows."""
        first, second, cosine = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        order = np.lexsort((second, first, -cosine))[: self.most]
        return first[order], second[order], cosine[order]


def rows_without(rows: int, duplicates: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Return the rows that are in no pair: what the probe is scored on when duplicates are left out.

    Parameters
    ----------
    rows
        Of the table.
    duplicates
        ``Pairs.first`` or ``Pairs.second``, whichever side the table is.

    Examples
    --------
    >>> rows_without(4, np.array([2, 2]))
    array([0, 1, 3])
    """
    return np.setdiff1d(np.arange(rows), duplicates)
