"""Exact nearest rows by brute force, in blocks: for votes of neighbours and for near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.analysis.blocks import blocks
from stages.analysis.checks import check_widths
from stages.errors import InputError
from stages.records import Progress

Array = NDArray[Any]
Distance = Literal["cosine", "euclidean"]

QUERY_ROWS = 1024
BASE_ROWS = 4096


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of each query, nearest first; of equally near ones the lower row first."""

    rows: NDArray[np.intp]
    """(q, k) positions in the table searched."""
    closeness: NDArray[np.float64]
    """(q, k) cosine similarity, or minus the squared euclidean distance: the larger the nearer."""


def nearest_rows(
    queries: Array,
    base: Array,
    k: int,
    *,
    distance: Distance = "cosine",
    query_rows: NDArray[np.intp] | None = None,
    base_rows: NDArray[np.intp] | None = None,
    exclude_self: bool = False,
    progress: Progress | None = None,
) -> Nearest:
    """Find the k nearest rows of a table for each query.

    Parameters
    ----------
    queries, base
        (q, d) and (n, d); read in blocks of 1,024 and 4,096 rows, so that beside the answer no more than
        about 100 MB are held at 1,280 dimensions.
    k
        How many.
    distance
        "cosine" (float32 products of rows of norm 1; a row of zeros is at cosine 0 to everything) or
        "euclidean" (float64, because the squared distance is a difference of larger numbers).
    query_rows, base_rows
        Ascending positions that take part; None = all.
    exclude_self
        Whether ``queries`` is ``base`` and a row is no neighbour of itself.
    progress
        Called with (queries done, all queries, note).

    Raises
    ------
    InputError
        k below one or larger than the rows to be found, an unknown distance, or other dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> base = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    >>> nearest_rows(np.array([[2.0, 1.9]], np.float32), base, 2).rows
    array([[2, 0]])
    """
    check_widths(queries, base, "the queries", "the table searched")
    found = len(base) if base_rows is None else len(base_rows)
    total = len(queries) if query_rows is None else len(query_rows)
    if distance not in ("cosine", "euclidean"):
        raise InputError(f"distance {distance!r} is unknown: use cosine or euclidean")
    if not 1 <= k <= found - exclude_self:
        raise InputError(f"{k} neighbours wanted of {found - exclude_self} rows: give 1 to that many")
    parts, done = [], 0
    for positions, block in _prepared(queries, query_rows, QUERY_ROWS, distance):
        parts.append(_search(positions, block, base, base_rows, k, distance, exclude_self))
        done += len(positions)
        if progress is not None:
            progress(done, total, "queries")
    return Nearest(np.concatenate([p.rows for p in parts]), np.concatenate([p.closeness for p in parts]))


def row_norms(block: Array) -> NDArray[np.float64]:
    """Return the rows' euclidean norms; 1 for rows of zeros."""
    values = block if block.dtype == np.float64 else block.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return np.where(norms > 0, norms, 1)


def unit_rows(block: Array, norms: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """Return float32 rows of norm 1; rows of zeros stay zeros. ``norms`` are the block's, where they are known."""
    values = block if block.dtype == np.float64 else block.astype(np.float32, copy=False)
    norms = (row_norms(block) if norms is None else norms).astype(values.dtype)
    return np.asarray(values / norms[:, None], dtype=np.float32)


def _prepared(
    features: Array, rows: NDArray[np.intp] | None, size: int, distance: Distance
) -> Iterator[tuple[NDArray[np.intp], Array]]:
    """Yield blocks in the form that a product wants."""
    for positions, block in blocks(features, rows, size=size, dtype=None):
        yield positions, unit_rows(block) if distance == "cosine" else block.astype(np.float64)


def _search(
    positions: NDArray[np.intp],
    queries: Array,
    base: Array,
    base_rows: NDArray[np.intp] | None,
    k: int,
    distance: Distance,
    exclude_self: bool,
) -> Nearest:
    """Find the nearest rows for one block of queries."""
    best = np.empty((len(queries), 0), dtype=queries.dtype)
    where = np.empty((len(queries), 0), dtype=np.intp)
    for others, block in _prepared(base, base_rows, BASE_ROWS, distance):
        close = _closeness(queries, block, distance)
        if exclude_self:
            close[positions[:, None] == others[None, :]] = -np.inf
        best = np.hstack([best, close])
        where = np.hstack([where, np.broadcast_to(others, close.shape)])
        if best.shape[1] > k:
            kept = _largest(best, k)
            best = np.take_along_axis(best, kept, axis=1)
            where = np.take_along_axis(where, kept, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    closeness = np.take_along_axis(best, order, axis=1).astype(np.float64)
    return Nearest(np.take_along_axis(where, order, axis=1), closeness)


def _closeness(queries: Array, block: Array, distance: Distance) -> Array:
    """Return (q, b) cosines, or minus squared distances that rounding has not pushed above zero."""
    product = queries @ block.T
    if distance == "cosine":
        return np.asarray(product)
    squares = np.einsum("ij,ij->i", queries, queries)[:, None] + np.einsum("ij,ij->i", block, block)
    return np.asarray(np.minimum(2 * product - squares, 0))


def _largest(values: Array, k: int) -> NDArray[np.intp]:
    """Return (q, k) columns of the k largest values, ascending; of equal ones the leftmost are taken."""
    kept = np.argpartition(values, values.shape[1] - k, axis=1)[:, -k:]
    cut = np.take_along_axis(values, kept, axis=1).min(axis=1, keepdims=True)
    crowded = np.flatnonzero((values >= cut).sum(axis=1) > k)
    if crowded.size:
        # More values equal the smallest one taken than there was room for: which were taken is an accident.
        ties, smallest = values[crowded], cut[crowded]
        above, equal = ties > smallest, ties == smallest
        equal &= np.cumsum(equal, axis=1) <= k - above.sum(axis=1, keepdims=True)
        kept[crowded] = np.nonzero(above | equal)[1].reshape(len(crowded), k)
    kept.sort(axis=1)
    return kept
