"""Seeded, stratified partitions of rows that keep groups and identical images together.

One algorithm serves every seeded split of the project: iterative stratification (Sechidis, Tsoumakas and
Vlahavas, 2011) over *units*. A unit is the smallest set of rows that must stay together: the rows of one
group and the rows whose images are byte-identical, closed under both. For single-label rows without
groups it gives the usual stratified split, exact to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAME = 1e-9
"""Difference up to which two wishes for rows are one."""


def units_of(n: int, *keys: Sequence[str] | None) -> NDArray[np.intp]:
    """Number the units of n rows: rows that share a value in any of the keys share a unit.

    Parameters
    ----------
    n : int
        Rows.
    *keys : sequence of str, or None
        One value a row each: groups, hashes of image bytes. An empty string joins nothing.

    Returns
    -------
    ndarray of intp, shape (n,)
        Unit of each row, numbered from 0 in order of first appearance.
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for key in keys:
        first: dict[str, int] = {}
        for row, value in enumerate(key or ()):
            if value:
                # The smaller root wins, so that the numbering does not depend on the order of the keys.
                low, high = sorted((root(first.setdefault(value, row)), root(row)))
                parent[high] = low
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(i), len(numbers)) for i in range(n)], dtype=np.intp)


@dataclass(frozen=True)
class _LabelsOfUnits:
    """How many rows of a unit have a label: sparse, for a million rows have a thousand classes.

    Plain arrays: every command that plans needs them, and importing scipy.sparse takes it a third of a second.
    """

    labels: NDArray[np.intp]
    """Of every pair of a unit and a label that it has, ordered by unit."""
    rows: NDArray[np.intp]
    """How many, of every pair."""
    first: NDArray[np.intp]
    """Pairs before each unit's, and their number at the end."""
    units_by_label: tuple[NDArray[np.intp], ...]
    """The units that have each label, ascending."""

    @classmethod
    def count(cls, labels: NDArray[np.integer], units: NDArray[np.intp]) -> _LabelsOfUnits:
        """Count them."""
        several = labels.ndim == 2
        rows, present = np.nonzero(labels == 1) if several else (np.arange(len(labels)), labels)
        classes = labels.shape[1] if several else int(labels.max()) + 1
        pairs, counts = np.unique(units[rows] * classes + present, return_counts=True)
        unit, label = np.divmod(pairs, classes)
        first = np.searchsorted(unit, np.arange(int(units.max()) + 2))
        by_label = np.argsort(label, kind="stable")
        ends = np.searchsorted(label[by_label], np.arange(1, classes))
        return cls(label, counts, first, tuple(np.split(unit[by_label], ends)))

    def of(self, unit: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the labels of a unit, and how many of its rows have each."""
        own = slice(self.first[unit], self.first[unit + 1])
        return self.labels[own], self.rows[own]


def partition(
    labels: NDArray[np.integer],
    units: NDArray[np.intp],
    proportions: Sequence[float],
    *,
    seed: int,
) -> NDArray[np.intp]:
    """Assign every row to one of several parts, stratified by label, never tearing a unit.

    Parameters
    ----------
    labels : ndarray, shape (n,) or (n, K)
        Class index, or 1 / 0 / -1 per label.
    units : ndarray of intp, shape (n,)
        From `units_of`.
    proportions : sequence of float
        Wanted share of each part; they sum to 1.
    seed : int
        Same seed, same rows, same parts, on every machine (PCG64).

    Returns
    -------
    ndarray of intp, shape (n,)
        Part of each row.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> part = partition(labels, np.arange(8), [0.75, 0.25], seed=0)
    >>> [int((part[labels == k] == 1).sum()) for k in (0, 1)]
    [1, 1]
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = _LabelsOfUnits.count(labels, units)
    sizes = np.bincount(units)
    share = np.asarray(proportions, dtype=np.float64)
    waiting = np.zeros(len(counts.units_by_label), dtype=np.int64)
    np.add.at(waiting, counts.labels, counts.rows)
    wanted = share[:, None] * waiting[None, :]
    room = share * len(units)
    part_of_unit = np.full(len(sizes), -1, dtype=np.intp)

    def place(unit: int, label: int | None) -> None:
        wish = room if label is None else wanted[:, label]
        # Largest wish for the label, then most room, then the dice: the order of Sechidis et al.
        best = np.flatnonzero(wish >= wish.max() - SAME)
        best = best[room[best] >= room[best].max() - SAME]
        part = int(best[0] if len(best) == 1 else rng.choice(best))
        part_of_unit[unit] = part
        own, rows = counts.of(unit)
        wanted[part, own] -= rows
        waiting[own] -= rows
        room[part] -= sizes[unit]

    # Rare labels first: what they need cannot be mended later. Large units first, for the same reason.
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    while waiting.any():
        label = int(np.argmin(np.where(waiting > 0, waiting, np.iinfo(np.int64).max)))
        there = counts.units_by_label[label]
        there = there[part_of_unit[there] < 0]
        for unit in there[np.argsort(rank[there])]:
            place(int(unit), label)
        waiting[label] = 0
    for unit in order[part_of_unit[order] < 0]:
        place(int(unit), None)
    return part_of_unit[units]


def hold_out(
    labels: NDArray[np.integer],
    fraction: float,
    *,
    seed: int,
    groups: Sequence[str] | None = None,
    image_sha256: Sequence[str] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows that stay and the rows held out, both ascending.

    Parameters
    ----------
    labels : ndarray, shape (n,) or (n, K)
        Class index, or 1 / 0 / -1 per label.
    fraction : float
        Share to hold out, in (0, 1).
    seed : int
        Of the dice.
    groups, image_sha256 : sequence of str, optional
        Rows that share a value stay on one side.
    """
    units = units_of(len(labels), groups, image_sha256)
    part = partition(labels, units, [1 - fraction, fraction], seed=seed)
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1)
