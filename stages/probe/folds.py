"""Which rows are fitted and which are validated: seeded, stratified, identical images kept together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import ProbeError
from stages.records import FeatureTable
from stages.splitting import hold_out, partition, units_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Folds:
    """A partition of rows for cross-validation."""

    fold: NDArray[np.int16]
    """(n,) fold of each row; -1 = fitted on in every fold."""
    count: int
    notes: tuple[str, ...] = ()
    """What differs from what was asked for."""


def make_folds(table: FeatureTable, count: int, seed: int) -> Folds:
    """Return stratified folds that never tear a group or a set of byte-identical images.

    A class (or label) with fewer units than folds lowers the number of folds to that, down to two; a
    class of a single unit cannot be validated: its rows count as errors in the fold that holds them
    (protocol, "Cross-validation").

    Raises
    ------
    ProbeError
        ``count`` below two, or no class has two units: there is nothing to cross-validate.
    """
    if count < 2:
        raise ProbeError(f"folds = {count}: cross-validation needs at least two")
    units = units_of(len(table.labels), table.groups, table.image_sha256)
    sizes = _units_per_class(table, units)
    several = sizes[sizes > 1]
    if not several.size:
        raise ProbeError(
            "every class has a single row (or group): no cross-validation is possible, "
            'give a validation split and selection = "validation"'
        )
    notes = []
    used = min(count, int(several.min()))
    if used < count:
        name = table.class_names[int(np.flatnonzero(sizes == used)[0])]
        notes.append(f"{used} folds instead of {count}: class {name!r} has {used} rows or groups")
    single = [table.class_names[k] for k in np.flatnonzero(sizes == 1)]
    if single:
        notes.append(
            f"{len(single)} of {len(sizes)} classes have a single row or group and count as errors in "
            f"cross-validation, the first is {single[0]!r}"
        )
    return Folds(_assign(table, units, used, seed).astype(np.int16), used, tuple(notes))


def _units_per_class(table: FeatureTable, units: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return (K,) how many units hold a row of each class."""
    n_classes = len(table.class_names)
    if table.multi_label:
        return np.array([len(np.unique(units[table.labels[:, k] == 1])) for k in range(n_classes)])
    pairs = np.unique(units.astype(np.int64) * n_classes + table.labels)
    return np.bincount(pairs % n_classes, minlength=n_classes)


def _assign(table: FeatureTable, units: NDArray[np.intp], count: int, seed: int) -> NDArray[np.intp]:
    """Return the fold of each row."""
    if table.multi_label or len(np.unique(units)) < len(units):
        return partition(table.labels, units, [1 / count] * count, seed=seed)
    return _deal(table.labels, count, seed)


def _deal(labels: Array, count: int, seed: int) -> NDArray[np.intp]:
    """Deal shuffled rows of one class after the other to the folds in turn: sizes differ by one at most."""
    rng = np.random.Generator(np.random.PCG64(seed))
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.intp)
    fold[by_class] = np.arange(len(labels)) % count
    return fold


@dataclass(frozen=True)
class Trial:
    """One subset to fit and the rows to score it on."""

    fitted: NDArray[np.bool_]
    """(n,)."""
    held: NDArray[np.intp]
    """Rows that are scored."""


@dataclass(frozen=True)
class Plan:
    """Which rows are fitted and scored."""

    fold: NDArray[np.int16]
    trials: list[Trial]
    method: str
    notes: tuple[str, ...] = ()


def make_plan(
    table: FeatureTable, n_train: int, selection: str, folds: int, seed: int, fraction: float
) -> Plan:
    """Return the trials of a selection; the first ``n_train`` rows are train, the others validation.

    Raises
    ------
    ProbeError
        An unknown selection, a share outside (0, 1), or too few rows.
    """
    n = len(table.ids)
    if selection == "cross_validation":
        made = make_folds(table, folds, seed)
        trials = [Trial(made.fold != f, np.flatnonzero(made.fold == f)) for f in range(made.count)]
        method = f"{made.count}-fold cross-validation over train + validation, seed {seed}"
        return Plan(made.fold, trials, method, made.notes)
    if selection != "validation":
        raise ProbeError(f"selection = {selection!r}: use cross_validation or validation")
    held = np.arange(n_train, n)
    method = f"validation split of {n - n_train} rows"
    if n_train == n:
        if not 0 < fraction < 1:
            raise ProbeError(f"validation_fraction = {fraction}: give a share between 0 and 1")
        _, held = hold_out(
            table.labels, fraction, seed=seed, groups=table.groups, image_sha256=table.image_sha256
        )
        method = f"validation on {len(held)} of {n} training rows held out, seed {seed}"
        if not 0 < len(held) < n:
            raise ProbeError(f"holding out {fraction:g} of {n} rows leaves one side empty: add rows")
    fold = np.full(n, -1, dtype=np.int16)
    fold[held] = 0
    return Plan(fold, [Trial(fold < 0, held)], method)
