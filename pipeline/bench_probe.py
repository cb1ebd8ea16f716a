"""`penultimate bench probe`: the lambda path beside scikit-learn's, with the true suboptimality of both.

The other side is frozen: scikit-learn, float32 features, lbfgs, warm-started from strong to weak lambda,
max_iter 1000, the tolerance named, the same number of BLAS threads; "at its defaults" is max_iter 100 and
tol 1e-4, for the bar of the cross-validation. Suboptimality is (J - J*) / min(J*, J_null - J*) in float64 on
the features themselves (protocol, "The certificate"), with J* from a solve certified to 1e-8.
"""

from __future__ import annotations

import csv
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.locks import silent
from stages.records import Backbone, FeatureTable, Split

Array = NDArray[Any]
Rows = list[dict[str, Any]]
Solutions = tuple[Sequence[Array], Sequence[Array]]
"""Coefficients and intercepts at every lambda, strong to weak."""

SETS = ("caltech101-15", "cifar100-30", "flowers12", "cars20-128")
"""Of $PENULTIMATE_TEST_DATA: the problems that the bars are stated for."""
REFERENCE_TOLERANCE = 1e-8
RECIPE = "ssl-transfer recipe, C ascending, max_iter 100"
SAME = "scikit-learn until as close, max_iter 100000"
SLOW_SIDE = "scikit-learn path, tol 1e-6"
HELD_OUT = 0.2
"""Of the training rows, for the recipe that validates on one split."""
TIGHTER = (1e-8, 1e-10, 1e-12)
"""Tolerances that scikit-learn is given, one after the other, until it is as close to the optimum as we are."""


@dataclass(frozen=True)
class Selected:
    """The final fit of a side that selects lambda."""

    coefficients: Array
    intercepts: Array
    l2_lambda: float
    score: float
    """Top-1 on the test rows."""


def bench_sets(
    backbone: Backbone,
    root: Path,
    names: Sequence[str],
    threads: int | None,
    *,
    thorough: bool = False,
    tell: Callable[[str], None] = silent,
) -> Rows:
    """Measure every side on the training rows of real image sets.

    Parameters
    ----------
    backbone : Backbone
    root : Path
        Holds NAME/split.csv with the columns path, label and split.
    names : sequence of str
        Which sets.
    threads : int or None
        For both sides; None = one a core.
    thorough : bool
        Whether to measure too how long scikit-learn takes to come as close to the optimum as we do.
    tell : callable
        Takes a line on what is measured, and what came of it.
    """
    return [
        row
        for name in names
        for row in bench_problem(name, *_table(backbone, root / name), threads, thorough=thorough, tell=tell)
    ]


def bench_problem(
    name: str,
    train: FeatureTable,
    test: FeatureTable,
    threads: int | None,
    *,
    thorough: bool = False,
    tell: Callable[[str], None] = silent,
) -> Rows:
    """Measure every side on one problem; returns one row a side.

    Returns
    -------
    list of dict
        problem, side, seconds (wall) and cpu_seconds, times_as_fast against scikit-learn's path at tol 1e-6,
        worst and median suboptimality over the lambdas; for sides that select, those of the final fit, with
        the lambda selected and the test score; for our path also the seconds that its matrix products alone
        take at this machine's measured rate.
    """
    from threadpoolctl import threadpool_limits

    from pipeline.executors import worker_count
    from stages.probe import default_lambdas, fit_path

    features, labels, grid = np.asarray(train.features), train.labels, default_lambdas()[::-1]
    threads = threads or worker_count(None)
    tell(f"{name}: the optimum at every lambda, to {REFERENCE_TOLERANCE:g}, to measure the others by")
    best = fit_path(features, labels, grid, tolerance=REFERENCE_TOLERANCE, threads=threads).objective
    rows: Rows = []
    with threadpool_limits(threads):
        for side, function in _sides(train, test, grid, threads, thorough):
            if side.startswith(SAME) and rows[-1]["side"].startswith(SAME) and _as_close(rows):
                break
            started, clock = time.perf_counter(), time.process_time()
            found = function()
            row = {
                "problem": name,
                "side": side,
                "seconds": round(time.perf_counter() - started, 2),
                "cpu_seconds": round(time.process_time() - clock, 2),
            }
            rows.append({**row, **_quality(found, features, labels, grid, best)})
            tell(", ".join(f"{what} {value}" for what, value in rows[-1].items()))
        rows[0]["floor_seconds"] = round(_floor(features, labels, grid, threads), 2)
    slow = next(row["seconds"] for row in rows if row["side"] == SLOW_SIDE)
    return [{**row, "times_as_fast": round(slow / row["seconds"], 2)} for row in rows]


def _sides(
    train: FeatureTable, test: FeatureTable, grid: Array, threads: int, thorough: bool
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name every side with what it does."""
    from stages.probe import fit_path, fit_probe

    features, labels = np.asarray(train.features), train.labels

    def ours() -> Solutions:
        path = fit_path(features, labels, grid, threads=threads)
        return list(path.coefficients), list(path.intercepts)

    def cross_validated() -> Selected:
        found = fit_probe(train, None, test, metric="top_1", lambdas=grid, threads=threads)
        return Selected(found.coefficients, found.intercepts, found.l2_lambda, found.value)

    yield "penultimate path, certified to 1e-3", ours
    yield "penultimate 5-fold selection + refit, certified", cross_validated
    yield "scikit-learn path at its defaults", lambda: plain_path(features, labels, grid, 1e-4, 100)
    yield "scikit-learn path, tol 1e-4", lambda: plain_path(features, labels, grid, 1e-4, 1000)
    yield SLOW_SIDE, lambda: plain_path(features, labels, grid, 1e-6, 1000)
    yield "LogisticRegressionCV, 5 folds", lambda: _plain_selection(train, test, grid)
    yield RECIPE, lambda: _ssl_transfer(train, test, grid)
    for tolerance in TIGHTER if thorough else ():
        yield (
            f"{SAME}, tol {tolerance:g}",
            functools.partial(plain_path, features, labels, grid, tolerance, 100_000),
        )


def _as_close(rows: Rows) -> bool:
    """Whether the last side came as close to the optimum as the first."""
    return bool(rows[-1]["worst_suboptimality"] <= max(rows[0]["worst_suboptimality"], 1e-3))


def plain_path(features: Array, labels: Array, grid: Array, tolerance: float, steps: int) -> Solutions:
    """Fit as people do: scikit-learn, warm-started from strong to weak."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(tol=tolerance, max_iter=steps, warm_start=True)
    coefficients, intercepts = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the suboptimality beside it says it better
        for strength in grid:
            model.C = 1 / strength
            model.fit(features, labels)
            coefficients.append(model.coef_.copy())
            intercepts.append(model.intercept_.copy())
    return coefficients, intercepts


def _plain_selection(train: FeatureTable, test: FeatureTable, grid: Array) -> Selected:
    """Select as people do."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV

    model = LogisticRegressionCV(Cs=1 / grid, cv=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (ConvergenceWarning, FutureWarning))
        model.fit(train.features, train.labels)
    return _selected(model, 1 / float(np.ravel(model.C_)[0]), test)


def _ssl_transfer(train: FeatureTable, test: FeatureTable, grid: Array) -> Selected:
    """Select as linusericsson/ssl-transfer does: one warm-started model from weak C to strong, one held-out split."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from stages.splitting import hold_out

    fitted, held = hold_out(train.labels, HELD_OUT, seed=0)
    model, best = LogisticRegression(max_iter=100, warm_start=True), (-1.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in np.sort(grid)[::-1]:
            model.C = 1 / strength
            model.fit(train.features[fitted], train.labels[fitted])
            score = float(model.score(train.features[held], train.labels[held]))
            best = max(best, (score, float(strength)))
        model.C = 1 / best[1]
        model.fit(train.features, train.labels)
    return _selected(model, best[1], test)


def _selected(model: Any, l2_lambda: float, test: FeatureTable) -> Selected:
    """Return what a model of scikit-learn came to."""
    score = float(model.score(test.features, test.labels))
    return Selected(model.coef_, model.intercept_, l2_lambda, score)


def _quality(found: object, features: Array, labels: Array, grid: Array, best: Array) -> dict[str, Any]:
    """Measure how far the solutions of a path, or the one selected, lie from the optimum."""
    if isinstance(found, Selected):
        at = int(np.argmin(np.abs(np.log(grid / found.l2_lambda))))
        path = [found.coefficients], [found.intercepts]
        return {
            **_suboptimality(path, features, labels, grid[[at]], best[[at]]),
            "l2_lambda": float(f"{found.l2_lambda:.3g}"),
            "test_score": round(found.score, 4),
        }
    assert isinstance(found, tuple)
    return _suboptimality(found, features, labels, grid, best)


def _suboptimality(
    found: Solutions, features: Array, labels: Array, grid: Array, best: Array
) -> dict[str, float]:
    """Return the worst and the median of solutions at the lambdas of a grid."""
    from stages.probe import certify

    excess = []
    for weights, intercepts, strength, optimum in zip(*found, grid, best, strict=True):
        seen = certify(features, labels, weights, intercepts, strength)
        excess.append(max(seen.objective - optimum, 0.0) / min(optimum, seen.null_objective - optimum))
    return {
        "worst_suboptimality": float(f"{max(excess):.3g}"),
        "median_suboptimality": float(f"{np.median(excess):.3g}"),
    }


def _floor(features: Array, labels: Array, grid: Array, threads: int) -> float:
    """Return the seconds of the path's matrix products alone, at the rate that this machine multiplies with.

    Two products of (n, min(n, d)) by (min(n, d), K) an evaluation, float32.
    """
    from stages.probe import fit_path

    evaluations = int(fit_path(features, labels, grid, threads=threads).evaluations.sum())
    n, d = features.shape
    inner, classes = min(n, d), int(labels.max()) + 1
    left = np.ones((n, inner), np.float32)
    right = np.ones((inner, classes), np.float32)
    out = np.empty((n, classes), np.float32)
    left.dot(right, out=out)
    started, repeats = time.perf_counter(), 10
    for _ in range(repeats):
        left.dot(right, out=out)
    return 2 * evaluations * (time.perf_counter() - started) / repeats


def _table(backbone: Backbone, folder: Path) -> tuple[FeatureTable, FeatureTable]:
    """Extract the features of a set that has a split.csv."""
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    classes = tuple(sorted({line["label"] for line in lines}))
    return (
        _features(backbone, folder, [line for line in lines if line["split"] != "test"], classes),
        _features(backbone, folder, [line for line in lines if line["split"] == "test"], classes),
    )


def _features(
    backbone: Backbone, folder: Path, lines: Sequence[dict[str, str]], classes: tuple[str, ...]
) -> FeatureTable:
    """Extract the features of some lines of a split.csv."""
    from stages.extract import extract_features

    labels = np.array([classes.index(line["label"]) for line in lines])
    ids = tuple(line["path"] for line in lines)
    split = Split("train", ids, tuple(folder / name for name in ids), labels)
    features = np.concatenate([batch.features for batch in extract_features(backbone, split)])
    return FeatureTable(features, labels, ids, classes)
