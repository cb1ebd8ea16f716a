"""Choose lambda on rows that were not fitted, refit, score the test set once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.errors import ProbeError
from stages.metrics import calibration_error, evaluate, log_loss
from stages.probe.fits import Fits
from stages.probe.folds import make_plan
from stages.probe.path import default_lambdas
from stages.probe.predict import logits_of, probabilities_of
from stages.probe.scaling import SCALINGS, Scaling
from stages.probe.scan import Scan
from stages.probe.tables import check_tables, stack_tables
from stages.probe.targets import SAME_LAMBDA, check_lambdas, check_tolerance
from stages.probe.threads import limited_threads
from stages.records import FeatureTable, Metric, ProbeResult, Progress, SelectionRow

Array = NDArray[Any]
Selection = Literal["cross_validation", "validation"]
Refit = Literal["train_and_validation", "train"]

TIE = 1e-12
log = logging.getLogger(__name__)


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
    refit: Refit = "train_and_validation",
    scaling: Scaling = "none",
    known: Sequence[SelectionRow] = (),
    memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ProbeResult:
    """Select lambda by the data set's own metric, refit, and score the test split once.

    Parameters
    ----------
    train, validation, test
        Splits of one data set through one backbone; ``validation`` where the data set has one of its own.
    metric
        "top_1", "mean_per_class" or "map_11_point" (the only one for multi-label data).
    lambdas
        Candidates; None: the paper's 45.
    selection
        "cross_validation": stratified folds over train + validation. "validation", the paper's: fitted on
        train, scored on validation, or on ``validation_fraction`` of train held out where there is none.
    folds, seed
        Of the cross-validation or the held-out rows; groups and identical images are never torn.
    tolerance
        Of every fit, see `fit_path`.
    refit
        What the final probe is fitted to: "train_and_validation", or "train" as in the paper's experiment
        with few examples (protocol, "Other experiments", L).
    scaling
        "none", or "standardise": columns to variance 1 over the fitted rows of each fit.
    known
        Rows of an earlier selection from the same tables with the same settings: lambdas that are among them
        are not fitted again, so that a longer grid costs what is new in it.
    memory, threads
        As in `fit_path`.
    progress
        Called with (done, total, note).

    Returns
    -------
    ProbeResult
        The lambda is carried to the refit unscaled; ties go to the stronger lambda.

    Raises
    ------
    ProbeError
        Tables that do not fit each other or the metric, NaN, one class only, a grid or an option that
        makes no sense, or too few rows for the selection asked for.
    InputError
        An unknown metric.

    Examples
    --------
    >>> import numpy as np
    >>> from stages.records import FeatureTable
    >>> rng = np.random.default_rng(0)
    >>> def table(n):
    ...     labels = np.arange(n) % 2
    ...     features = (rng.normal(size=(n, 3)) + 3 * labels[:, None]).astype(np.float32)
    ...     return FeatureTable(features, labels, tuple(f"{n}-{i}" for i in range(n)), ("cat", "dog"))
    >>> result = fit_probe(table(40), None, table(20), metric="top_1", lambdas=[100.0, 1.0])
    >>> result.value > 0.9, len(result.selection)
    (True, 2)
    """
    start = time.perf_counter()
    check_tables([train, test] if validation is None else [train, validation, test], metric)
    grid = check_lambdas(default_lambdas() if lambdas is None else lambdas)
    check_tolerance(tolerance)
    if scaling not in SCALINGS or refit not in ("train_and_validation", "train"):
        raise ProbeError(f"scaling = {scaling!r}, refit = {refit!r}: one of them is unknown")
    table = train if validation is None else stack_tables(train, validation)
    plan = make_plan(table, len(train.ids), selection, folds, seed, validation_fraction)
    used = np.ones(len(table.ids), bool) if refit == "train_and_validation" else _first(table, train)
    fits = Fits(table, metric, tolerance, scaling, memory)
    with limited_threads(threads):
        before = _among(known, grid)
        fresh = np.array([strength for strength in np.sort(grid)[::-1] if strength not in before])
        found, basis = fits.scan(plan.trials, fresh, progress)
        rows = _selection_rows(grid, fresh, found, before)
        best = select_lambda(rows)
        fitted = fits.refit(used, best.l2_lambda, found, basis)
    z = logits_of(test.features, fitted.coefficients, fitted.intercepts, train.multi_label)
    p = probabilities_of(z, train.multi_label)
    return ProbeResult(
        metric=metric,
        value=evaluate(metric, test.labels, z),
        l2_lambda=best.l2_lambda,
        selection=rows,
        selection_method=plan.method,
        coefficients=fitted.coefficients,
        intercepts=fitted.intercepts,
        test_scores=p.astype(np.float32),
        n_train=int(used.sum()),
        n_test=len(test.ids),
        seconds=time.perf_counter() - start,
        warnings=plan.notes + _missed(rows, tolerance) + _edge(best, grid, rows) + fitted.events,
        extras={
            "log_loss": log_loss(test.labels, z),
            "calibration_error": calibration_error(test.labels, p),
            **fitted.figures,
        },
        class_names=train.class_names,
        multi_label=train.multi_label,
        test_logits=z,
        folds=plan.fold,
        seed=seed,
    )


def select_lambda(rows: Sequence[SelectionRow]) -> SelectionRow:
    """Return the best candidate; ties within 1e-12 go to the stronger lambda."""
    best = max(row.value for row in rows)
    return max((row for row in rows if row.value >= best - TIE), key=lambda row: row.l2_lambda)


def _missed(rows: Sequence[SelectionRow], tolerance: float) -> tuple[str, ...]:
    """Return a line, and log it, where a fit of the selection missed its tolerance."""
    late = [row.l2_lambda for row in rows if not row.converged]
    if not late:
        return ()
    line = (
        f"selection: {len(late)} of {len(rows)} lambdas missed tolerance {tolerance:g}, first {late[0]:.3g}"
    )
    log.warning(line)
    return (line,)


def _edge(best: SelectionRow, grid: Array, rows: Sequence[SelectionRow]) -> tuple[str, ...]:
    """Return a line where the optimum lies at the edge of the grid, or the grid decides nothing."""
    if len(rows) > 1 and len({row.value for row in rows}) == 1:
        return ("every lambda of the grid scores the same: the strongest is taken, as in every tie",)
    if len(grid) > 1 and best.l2_lambda in (grid.min(), grid.max()):
        side = "weakest" if best.l2_lambda == grid.min() else "strongest"
        return (f"the best lambda {best.l2_lambda:.3g} is the {side} of the grid: widen the grid",)
    return ()


def _among(known: Sequence[SelectionRow], grid: Array) -> dict[float, SelectionRow]:
    """Return the known rows of the lambdas of a grid; grids are computed, so nearly equal is equal."""
    found = {}
    for strength in grid:
        row = next((row for row in known if math.isclose(row.l2_lambda, strength, rel_tol=SAME_LAMBDA)), None)
        if row is not None and row.converged and math.isfinite(row.value):
            found[float(strength)] = replace(row, l2_lambda=float(strength), reused=True)
    return found


def _selection_rows(
    grid: Array, fresh: Array, found: Scan, before: Mapping[float, SelectionRow]
) -> tuple[SelectionRow, ...]:
    """Return the table in the order the grid was given."""
    rows = dict(before)
    for strength, value, converged in zip(fresh, found.values, found.converged, strict=True):
        rows[float(strength)] = SelectionRow(float(strength), float(value), bool(converged))
    return tuple(rows[float(strength)] for strength in grid)


def _first(table: FeatureTable, train: FeatureTable) -> Array:
    """Return a mask of the rows of train."""
    return np.arange(len(table.ids)) < len(train.ids)
