"""Which rows a study of few examples trains and validates on: drawn per class, seeded, recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.analysis.checks import check_labels, check_single_label
from stages.errors import InputError

Array = NDArray[Any]
Rule = Literal["full", "proportional"]
Draw = Literal["nested", "independent"]

REPEATS = 3
"""Random subsets of each size (protocol, "Few examples")."""


@dataclass(frozen=True)
class Subset:
    """Rows that stand for a small data set."""

    per_class: int
    """Training rows of every class."""
    repeat: int
    """Which of the draws, from 0."""
    seed: int
    draw: Draw
    """"nested": a larger subset of one repeat contains the smaller ones; "independent": drawn afresh."""
    train: NDArray[np.intp]
    """(per_class * K,) rows of the training split, ascending."""
    validation: NDArray[np.intp]
    """Rows of the validation rows, ascending, by the ``rule``."""
    rule: Rule
    """"full": all validation rows, which grants the choice of hyper-parameters more labels than training has
    (the paper's, as far as is known: grade L); "proportional": the share that training keeps of its class."""


def doublings(labels: Array, class_names: Sequence[str], largest: int | None = None) -> tuple[int, ...]:
    """Return 1, 2, 4, ... examples a class, up to what the smallest class has, or to ``largest``.

    Parameters
    ----------
    labels
        (n,) integers of the training split.
    class_names
        K names; every class counts, one without rows too.
    largest
        Last number wanted.

    Raises
    ------
    InputError
        ``largest`` below one or above what the smallest class has, multi-label data, or an empty class.

    Examples
    --------
    >>> doublings(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1]), ("cat", "dog"))
    (1, 2, 4)
    """
    counts = _counts(labels, class_names)
    most = int(counts.min()) if largest is None else largest
    _check_enough(counts, class_names, max(most, 1))
    if most < 1:
        raise InputError(f"{most} examples a class: give at least 1")
    return tuple(2**i for i in range(most.bit_length()))


def draw_subsets(
    labels: Array,
    class_names: Sequence[str],
    per_class: Sequence[int],
    *,
    validation_labels: Array | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
    draw: Draw = "nested",
    rule: Rule = "full",
) -> tuple[Subset, ...]:
    """Draw subsets with the same number of rows of every class (protocol, "Few examples").

    Parameters
    ----------
    labels
        (n,) integers of the training split.
    class_names
        K names.
    per_class
        Numbers of examples, each once.
    validation_labels
        (m,) of the validation rows; None = there are none, and ``validation`` is empty.
    repeats
        Draws of each number.
    seed
        Same seed, same rows, on every machine (PCG64). The rows of a class depend on seed, repeat and the
        class's index alone (and on the number where draws are independent): other numbers asked for, or
        another class's rows, change nothing.
    draw
        "nested" or "independent".
    rule
        "full" or "proportional". Proportional keeps of each class's m_k validation rows m_k * per_class / n_k,
        rounded up: at least one where there is one.

    Returns
    -------
    tuple of Subset
        For each repeat, each number in the order given.

    Raises
    ------
    InputError
        Multi-label data, a class with fewer rows than asked for, or an argument out of range.

    Examples
    --------
    >>> subsets = draw_subsets(np.arange(12) % 3, ("a", "b", "c"), (1, 2), repeats=2)
    >>> [(s.repeat, s.per_class, len(s.train)) for s in subsets]
    [(0, 1, 3), (0, 2, 6), (1, 1, 3), (1, 2, 6)]
    """
    counts = _counts(labels, class_names)
    _check_arguments(per_class, repeats, seed, draw, rule)
    _check_enough(counts, class_names, max(per_class))
    held = np.empty(0, dtype=np.int64) if validation_labels is None else np.asarray(validation_labels)
    check_labels(held, len(held), len(class_names), "validation")
    found = []
    for repeat in range(repeats):
        for number in per_class:
            rows = [
                _some(labels, k, number, _generator(seed, repeat, k, number, draw, 0))
                for k in range(len(class_names))
            ]
            validation = np.arange(len(held), dtype=np.intp)
            if rule == "proportional":
                validation = _proportional(held, counts, number, seed, repeat, draw)
            found.append(Subset(number, repeat, seed, draw, np.sort(np.concatenate(rows)), validation, rule))
    return tuple(found)


def _counts(labels: Array, class_names: Sequence[str]) -> NDArray[np.intp]:
    """Return (K,) rows of each class."""
    labels = np.asarray(labels)
    check_single_label(labels, "a number of examples a class")
    check_labels(labels, len(labels), len(class_names), "train")
    return np.bincount(labels, minlength=len(class_names))


def _check_enough(counts: NDArray[np.intp], class_names: Sequence[str], number: int) -> None:
    """Raise `InputError` where a class runs out."""
    short = np.flatnonzero(counts < number)
    if short.size:
        least = int(short[counts[short].argmin()])
        raise InputError(
            f"{number} examples a class asked for, but {len(short)} of {len(counts)} classes have fewer, the "
            f"smallest is {class_names[least]!r} with {counts[least]}: ask for at most {counts[least]}"
        )


def _check_arguments(per_class: Sequence[int], repeats: int, seed: int, draw: str, rule: str) -> None:
    """Raise `InputError` for an argument out of range."""
    if not per_class or min(per_class) < 1 or len(set(per_class)) < len(per_class):
        raise InputError(f"per_class = {list(per_class)}: give whole numbers above 0, each once")
    if repeats < 1 or seed < 0:
        raise InputError(f"repeats = {repeats}, seed = {seed}: give at least 1 and at least 0")
    if draw not in ("nested", "independent"):
        raise InputError(f"draw = {draw!r}: use nested or independent")
    if rule not in ("full", "proportional"):
        raise InputError(f"validation = {rule!r}: use full or proportional")


def _generator(seed: int, repeat: int, label: int, number: int, draw: Draw, part: int) -> np.random.Generator:
    """Return the dice of one class; ``part`` is 0 for training and 1 for validation rows."""
    own = (seed, repeat, label, part) if draw == "nested" else (seed, repeat, label, part, number)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(own)))


def _some(labels: Array, label: int, number: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return some rows of a class: the first ones of a shuffle, so that fewer are among more."""
    return rng.permutation(np.flatnonzero(labels == label))[:number]


def _proportional(
    held: Array, counts: NDArray[np.intp], number: int, seed: int, repeat: int, draw: Draw
) -> NDArray[np.intp]:
    """Return the validation rows that go with so many training rows of each class."""
    rows = [np.empty(0, dtype=np.intp)]
    for k, count in enumerate(counts):
        # In integers: -(-a // b) is a / b rounded up.
        share = -(-int((held == k).sum()) * number // int(count))
        rows.append(_some(held, k, share, _generator(seed, repeat, k, number, draw, 1)))
    return np.sort(np.concatenate(rows))
