"""The regularisation path: one linear probe a lambda, warm-started from strong to weak."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from stages.errors import ProbeError
from stages.probe.targets import (
    Targets,
    check_features,
    check_fittable,
    check_labels,
    check_lambdas,
    make_targets,
)
from stages.records import PathResult, Progress

Array = NDArray[Any]
log = logging.getLogger(__name__)


def default_lambdas() -> NDArray[np.float64]:
    """Return the paper's grid: 45 strengths, logarithmically spaced from 1e-6 to 1e5."""
    return np.logspace(-6, 5, 45)


def fit_path(
    features: NDArray[np.floating[Any]],
    labels: ArrayLike,
    lambdas: Sequence[float] | NDArray[np.floating[Any]],
    *,
    tolerance: float = 1e-3,
    n_classes: int | None = None,
    memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PathResult:
    """Fit L2-regularised logistic regression at every lambda and certify each solution."""
    features = check_features(np.asanyarray(features))
    labels = check_labels(labels, len(features), n_classes)
    grid = check_lambdas(lambdas)
    if not 0 < tolerance < 1:
        raise ProbeError(f"tolerance = {tolerance}: give a number between 0 and 1")
    targets = make_targets(labels, n_classes)
    check_fittable(targets)
    order = np.argsort(-grid)
    L, K, d = len(grid), len(targets.limits), features.shape[1]
    W, B = np.zeros((L, K, d)), np.zeros((L, K))
    figures = np.zeros((4, L))
    evaluations, converged, events = np.zeros(L, np.int64), np.zeros(L, np.bool_), []
    X = np.asarray(features, np.float64)
    for done, i in enumerate(order):
        start = time.perf_counter()
        w, b, n, ok = _fit(X, targets, grid[i], tolerance)
        W[i], B[i] = targets.expand(w, b)
        evaluations[i], converged[i] = n, ok
        figures[:, i] = np.nan, np.nan, np.nan, time.perf_counter() - start
        if not ok:
            events.append(f"lambda {grid[i]:.3g}: tolerance {tolerance:g} was missed")
            log.warning(events[-1])
        if progress:
            progress(done + 1, L, f"lambda {grid[i]:.3g}")
    return PathResult(
        grid,
        W,
        B,
        figures[0],
        figures[1],
        figures[2],
        converged,
        evaluations,
        figures[3],
        tolerance,
        tuple(events),
    )


def _fit(X: Array, targets: Targets, l2_lambda: float, tolerance: float) -> tuple[Array, Array, int, bool]:
    if targets.loss == "softmax":
        c = (2 if len(targets.present) == 2 else 1) / l2_lambda
        model = LogisticRegression(C=c, tol=1e-6, max_iter=2000)
        ok = True
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model.fit(X, targets.labels)
        ok = not any(issubclass(w.category, ConvergenceWarning) for w in seen)
        w, b = model.coef_, model.intercept_
        if len(w) == 1:
            w, b = np.vstack([-w / 2, w / 2]), np.concatenate([-b / 2, b / 2])
        return w, b, int(model.n_iter_.max()), ok
    out, ok, n = [], True, 0
    for k in range(targets.labels.shape[1]):
        keep = targets.labels[:, k] >= 0
        model = LogisticRegression(C=1 / l2_lambda, tol=1e-6, max_iter=2000)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model.fit(X[keep], targets.labels[keep, k])
        ok &= not any(issubclass(w.category, ConvergenceWarning) for w in seen)
        out.append((model.coef_[0], model.intercept_[0]))
        n += int(model.n_iter_.max())
    return np.array([o[0] for o in out]), np.array([o[1] for o in out]), n, ok
