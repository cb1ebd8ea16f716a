"""Choose lambda on validation rows, refit on everything, score the test set once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.errors import InputError, ProbeError
from stages.metrics import (
    average_precisions,
    calibration_error,
    class_counts,
    evaluate,
    log_loss,
    mean_per_class_from_counts,
    top_1_from_counts,
)
from stages.probe.folds import make_folds
from stages.probe.path import default_lambdas, fit_path
from stages.probe.predict import logits_of, probabilities_of
from stages.probe.targets import check_features, check_labels, check_lambdas, make_targets
from stages.records import METRICS, FeatureTable, Metric, ProbeResult, Progress, SelectionRow
from stages.splitting import hold_out

Array = NDArray[Any]
Selection = Literal["cross_validation", "validation"]
TIE = 1e-12


@dataclass(frozen=True)
class _Choice:
    """A selection: the table and how it came about."""

    rows: tuple[SelectionRow, ...]
    method: str
    fold: NDArray[np.int16]
    notes: tuple[str, ...]


def fit_probe(
    train: FeatureTable,
    validation: FeatureTable | None,
    test: FeatureTable,
    *,
    metric: Metric,
    lambdas: Sequence[float] | NDArray[np.floating[Any]] | None = None,
    selection: Selection = "cross_validation",
    folds: int = 5,
    seed: int = 0,
    tolerance: float = 1e-3,
    validation_fraction: float = 0.2,
    refit: Literal["train_and_validation", "train"] = "train_and_validation",
    memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ProbeResult:
    """Select lambda, refit, and score the test split once."""
    start = time.perf_counter()
    tables = [train, test] if validation is None else [train, validation, test]
    _check(tables, metric)
    grid = check_lambdas(default_lambdas() if lambdas is None else lambdas)
    options = {"tolerance": tolerance, "memory": memory, "threads": threads}
    everything = train if validation is None else _stack(train, validation)
    if selection == "cross_validation":
        choice = _cross_validate(everything, grid, metric, folds, seed, options, progress)
    elif selection == "validation":
        choice = _validate(train, validation, grid, metric, seed, validation_fraction, options, progress)
    else:
        raise ProbeError(f"selection = {selection!r}: use cross_validation or validation")
    best = select_lambda(choice.rows)
    fitted = train if refit == "train" else everything
    path = fit_path(
        fitted.features, fitted.labels, [best.l2_lambda], n_classes=len(train.class_names), **options
    )
    z = logits_of(test.features, path.coefficients[0], path.intercepts[0], train.multi_label)
    p = probabilities_of(z, train.multi_label)
    z32, p32 = z.astype(np.float32), p.astype(np.float32)
    return ProbeResult(
        metric=metric,
        value=evaluate(metric, test.labels, z32 if train.multi_label else p32),
        l2_lambda=best.l2_lambda,
        selection=choice.rows,
        selection_method=choice.method,
        coefficients=path.coefficients[0],
        intercepts=path.intercepts[0],
        test_scores=p32,
        n_train=len(fitted.labels),
        n_test=len(test.labels),
        seconds=time.perf_counter() - start,
        warnings=choice.notes + _edge(best, grid) + path.events,
        extras={
            "log_loss": log_loss(test.labels, p),
            "calibration_error": calibration_error(test.labels, p),
            "objective": float(path.objective[0]),
            "bound": float(path.bound[0]),
            "estimate": float(path.estimate[0]),
        },
        class_names=train.class_names,
        multi_label=train.multi_label,
        test_logits=z32,
        folds=choice.fold,
        seed=seed,
    )


def select_lambda(rows: Sequence[SelectionRow]) -> SelectionRow:
    """Return the best candidate; ties within 1e-12 go to the stronger lambda."""
    best = max(row.value for row in rows)
    return max((row for row in rows if row.value >= best - TIE), key=lambda row: row.l2_lambda)


def _edge(best: SelectionRow, grid: Array) -> tuple[str, ...]:
    """Return a warning where the optimum lies at the edge of the grid."""
    if len(grid) > 1 and best.l2_lambda in (grid.min(), grid.max()):
        side = "weakest" if best.l2_lambda == grid.min() else "strongest"
        return (f"the best lambda {best.l2_lambda:.3g} is the {side} of the grid: widen the grid",)
    return ()


def _cross_validate(
    table: FeatureTable,
    grid: Array,
    metric: Metric,
    count: int,
    seed: int,
    options: dict[str, Any],
    progress: Progress | None,
) -> _Choice:
    folds = make_folds(table, count, seed)
    K, L = len(table.class_names), len(grid)
    hits, totals = np.zeros((L, K), np.int64), np.zeros(K, np.int64)
    aps: list[list[Array]] = [[] for _ in range(L)]
    converged, notes = np.ones(L, bool), list(folds.notes)
    for f in range(folds.count):
        fitted, held = np.flatnonzero(folds.fold != f), np.flatnonzero(folds.fold == f)
        path = fit_path(table.features[fitted], table.labels[fitted], grid, n_classes=K, **options)
        converged &= path.converged
        for i in range(L):
            z = logits_of(table.features[held], path.coefficients[i], path.intercepts[i], table.multi_label)
            if metric == "map_11_point":
                aps[i].append(average_precisions(table.labels[held], z))
            else:
                hits[i] += class_counts(table.labels[held], z)[0]
        if progress:
            progress(f + 1, folds.count + 1, f"fold {f + 1} of {folds.count}")
    if metric == "map_11_point":
        values = [float(np.nanmean(np.array(a))) for a in aps]
    else:
        totals = np.bincount(table.labels, minlength=K)
        value = top_1_from_counts if metric == "top_1" else mean_per_class_from_counts
        values = [value(h, totals) for h in hits]
    over = f"{folds.count}-fold cross-validation over train + validation, seed {seed}"
    return _Choice(_rows(grid, values, converged), over, folds.fold, tuple(notes))


def _validate(
    train: FeatureTable,
    validation: FeatureTable | None,
    grid: Array,
    metric: Metric,
    seed: int,
    fraction: float,
    options: dict[str, Any],
    progress: Progress | None,
) -> _Choice:
    if validation is None:
        if not 0 < fraction < 1:
            raise ProbeError(f"validation_fraction = {fraction}: give a share between 0 and 1")
        stay, held = hold_out(
            train.labels, fraction, seed=seed, groups=train.groups, image_sha256=train.image_sha256
        )
        if not len(stay) or not len(held):
            raise ProbeError(f"no validation split, and {fraction:g} of {len(train.labels)} rows leave none")
        fitted, validated = _take(train, stay), _take(train, held)
        fold = np.full(len(train.labels), -1, np.int16)
        fold[held] = 0
        method = f"validation on {len(held)} rows held out from train, seed {seed}"
    else:
        fitted, validated = train, validation
        fold = np.repeat(np.array([-1, 0], np.int16), [len(train.labels), len(validation.labels)])
        method = f"validation split of {len(validation.labels)} rows"
    path = fit_path(fitted.features, fitted.labels, grid, n_classes=len(train.class_names), **options)
    values = []
    for i in range(len(grid)):
        z = logits_of(validated.features, path.coefficients[i], path.intercepts[i], train.multi_label)
        values.append(evaluate(metric, validated.labels, z))
    if progress:
        progress(1, 2, method)
    return _Choice(_rows(grid, values, path.converged), method, fold, ())


def _rows(grid: Array, values: Sequence[float], converged: Array) -> tuple[SelectionRow, ...]:
    return tuple(
        SelectionRow(float(g), float(v), bool(c)) for g, v, c in zip(grid, values, converged, strict=True)
    )


def _take(table: FeatureTable, rows: Array) -> FeatureTable:
    return replace(
        table,
        features=table.features[rows],
        labels=table.labels[rows],
        ids=tuple(table.ids[i] for i in rows),
        groups=None if table.groups is None else tuple(table.groups[i] for i in rows),
        image_sha256=None if table.image_sha256 is None else tuple(table.image_sha256[i] for i in rows),
    )


def _stack(a: FeatureTable, b: FeatureTable) -> FeatureTable:
    """Return the rows of both; groups or hashes known to one side only are kept, the other's rows join none."""

    def both(x: tuple[str, ...] | None, y: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if x is None and y is None:
            return None
        return (x or ("",) * len(a.labels)) + (y or ("",) * len(b.labels))

    return replace(
        a,
        features=np.concatenate([a.features, b.features]),
        labels=np.concatenate([a.labels, b.labels]),
        ids=a.ids + b.ids,
        groups=both(a.groups, b.groups),
        image_sha256=both(a.image_sha256, b.image_sha256),
        digest="",
    )


def _check(tables: Sequence[FeatureTable], metric: Metric) -> None:
    first = tables[0]
    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is unknown: use one of {', '.join(METRICS)}")
    if first.multi_label and metric != "map_11_point":
        raise ProbeError(f"metric {metric!r} needs one label an image: use map_11_point for multi-label data")
    for table in tables:
        if table.class_names != first.class_names:
            raise ProbeError("the splits have different class names: they are not of one data set")
        if table.features.ndim != 2 or table.features.shape[1] != first.features.shape[1]:
            raise ProbeError("the splits have features of different width: extract them with one backbone")
        if table.multi_label != first.multi_label:
            raise ProbeError("one split is multi-label and another is not")
        check_features(table.features)
        check_labels(table.labels, len(table.features), len(first.class_names))
    make_targets(first.labels, len(first.class_names))
