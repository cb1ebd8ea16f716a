"""Seeded draws that depend on names alone: not on the order of a directory, not on a generator's version."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from stages.datasets.rows import Row


def drawn(ids: Iterable[str], seed: int) -> list[str]:
    """Return ids in the order of a draw.

    An id's lot is a hash of seed and id, so that one image more or less moves no other.

    Parameters
    ----------
    ids : iterable of str
        In any order.
    seed : int
        Of the draw.

    Examples
    --------
    >>> drawn(["a", "b", "c"], 0) == drawn(["c", "a", "b"], 0)
    True
    """
    return sorted(ids, key=lambda id_: (hashlib.sha256(f"{seed}:{id_}".encode()).digest(), id_))


def hold_validation_out(rows: Sequence[Row], share: Fraction, seed: int) -> list[Row]:
    """Move a stratified, seeded share of the training rows to validation; test is not touched.

    Parameters
    ----------
    rows : sequence of Row
        One label each.
    share : Fraction
        Of the training rows; the number held out is ``share`` times their number, rounded down, spread over
        the classes by largest remainder. A class keeps at least one training row.
    seed : int
        Of the draw.
    """
    by_class: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.split == "train":
            by_class[row.label].append(row.id)
    total = sum(map(len, by_class.values()))
    take = {label: int(len(ids) * share) for label, ids in by_class.items()}
    remainders = sorted(by_class, key=lambda label: (-(len(by_class[label]) * share % 1), label))
    for label in remainders[: int(total * share) - sum(take.values())]:
        take[label] += 1
    held = {
        id_ for label, ids in by_class.items() for id_ in drawn(ids, seed)[: min(take[label], len(ids) - 1)]
    }
    return [
        replace(row, split="validation") if row.split == "train" and row.id in held else row for row in rows
    ]
