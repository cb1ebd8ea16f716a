"""The regularisation path: one linear probe a lambda, each with its certificate."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.probe.basis import Basis, make_basis
from stages.probe.certificate import estimate, point_at
from stages.probe.losses import ABSENT, make_loss
from stages.probe.newton import Solver
from stages.probe.targets import (
    Targets,
    check_features,
    check_fittable,
    check_labels,
    check_lambdas,
    check_tolerance,
    make_targets,
)
from stages.probe.threads import limited_threads
from stages.probe.walk import walk
from stages.records import PathResult, Progress

Array = NDArray[Any]

_AT_THE_BEST_INTERCEPTS = 1e-10
"""A tolerance that leaves next to nothing to be gained by the intercepts alone."""
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
    """Fit L2-regularised logistic regression at every lambda and certify each solution.

    At each lambda it minimises J(W, b) = **sum** over rows of the cross-entropy + (l2_lambda / 2) ||W||^2,
    the intercepts b free (scikit-learn's C = 1 / l2_lambda). Two classes are one sigmoid; multi-label is one
    sigmoid a label, each certified; a pair with label -1 is in no loss (protocol, "Linear probe").

    Parameters
    ----------
    features
        (n, d) float32, float16 or float64, possibly memory-mapped; finite.
    labels
        (n,) integers from 0, or (n, K) of 1, 0 and -1.
    lambdas
        (L,) positive, distinct, in any order; the result keeps the order.
    tolerance
        A point has converged when bound <= tolerance * min(J - bound, J_null - J), J_null being the
        optimum at W = 0.
    n_classes
        Number of classes; None: the largest label + 1. A class without rows gets weights 0, intercept -inf.
    memory
        Bytes that copies of the features may take; beyond it they are read block by block at every pass.
        None: as much as they take in float32, and 256 MiB at least. Not counted: a few arrays of
        n x K and min(n, d) x d.
    threads
        Of the linear algebra; None: as many as the process may use.
    progress
        Called with (done, L, note) after each lambda.

    Returns
    -------
    PathResult
        Coefficients in the original feature space, with objective, bound, estimate and convergence.

    Raises
    ------
    ProbeError
        NaN or infinite features, labels that do not fit or lie outside the classes, one class only,
        a lambda that is not positive or given twice, a tolerance outside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> features = rng.normal(size=(60, 5)).astype(np.float32) + labels[:, None]
    >>> path = fit_path(features, labels, [10.0, 1.0, 0.1])
    >>> path.coefficients.shape, bool(path.converged.all())
    ((3, 3, 5), True)
    """
    features = check_features(np.asanyarray(features))
    labels = check_labels(labels, len(features), n_classes)
    grid = check_lambdas(lambdas)
    check_tolerance(tolerance)
    targets = make_targets(labels, n_classes)
    check_fittable(targets)
    with limited_threads(threads):
        found = _fit(features, targets, grid, tolerance, memory, progress)
    return replace(found, estimator=functools.partial(_estimates, features, targets, memory, threads, found))


def _fit(
    features: Array,
    targets: Targets,
    grid: Array,
    tolerance: float,
    memory: int | None,
    progress: Progress | None,
) -> PathResult:
    """Walk the grid from strong to weak and write each point where it was asked for."""
    mark = time.perf_counter()
    basis = make_basis(features, memory, turned=2 * features.shape[0] < features.shape[1])
    loss = make_loss(targets, np.ones((len(features), 1)))
    solver = Solver(basis, loss, loss.null()[0])
    L, K, d = len(grid), len(targets.limits), features.shape[1]
    W, B = np.zeros((L, K, d)), np.zeros((L, K))
    J, bound, seconds = np.zeros(L), np.zeros(L), np.zeros(L)
    converged, passes = np.zeros(L, dtype=np.bool_), np.zeros(L, dtype=np.int64)
    events = list(left_out(targets))
    order = np.argsort(-grid)
    for i, (l2_lambda, solution) in zip(order, walk(solver, grid[order], tolerance), strict=True):
        W[i], B[i] = unfold(basis, targets, solution.point.weights, solution.point.intercepts)
        J[i], bound[i] = solution.objective.sum(), solution.bound.sum()
        converged[i], passes[i] = solution.converged.all(), solution.passes
        seconds[i], mark = time.perf_counter() - mark, time.perf_counter()
        if not converged[i]:
            events.append(missed(l2_lambda, tolerance, bound[i], J[i]))
            log.warning(events[-1])
        if progress is not None:
            progress(int(np.count_nonzero(passes)), L, f"lambda {l2_lambda:.3g}")
    return PathResult(grid, W, B, J, bound, converged, passes, seconds, tolerance, tuple(events))


def _estimates(
    features: Array, targets: Targets, memory: int | None, threads: int | None, found: PathResult
) -> NDArray[np.float64]:
    """Return the estimate of every point of a path: down to the best intercepts, and from there."""
    with limited_threads(threads):
        basis = make_basis(features, memory, turned=2 * features.shape[0] < features.shape[1])
        loss = make_loss(targets, np.ones((len(features), 1)))
        solver = Solver(basis, loss, loss.null()[0])
        estimates = np.zeros(len(found.lambdas))
        for i, l2_lambda in enumerate(found.lambdas):
            point = point_at(basis, targets, found.coefficients[i], found.intercepts[i])
            now = solver.evaluate(point, l2_lambda, _AT_THE_BEST_INTERCEPTS)
            descent = max(float(found.objective[i] - now.objective.sum()), 0.0)
            estimates[i] = descent + estimate(solver, now, l2_lambda)
        return estimates


def unfold(basis: Basis, targets: Targets, weights: Array, intercepts: Array) -> tuple[Array, Array]:
    """Return (outputs, d) coefficients and (outputs,) intercepts of the features as they were given.

    Parameters
    ----------
    weights, intercepts
        (P, K, d) and (P, K) of one subset of rows: P = 1 for a softmax, K = 1 for sigmoids.
    """
    coefficients = basis.coefficients(weights.reshape(-1, basis.size))
    raw = intercepts.ravel()
    shifted = raw - coefficients @ basis.mean
    infinite = np.abs(raw) >= -ABSENT / 2
    return targets.expand(coefficients, np.where(infinite, np.copysign(np.inf, raw), shifted))


def left_out(targets: Targets, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return a line on the outputs that have no finite minimiser."""
    missing = np.flatnonzero(targets.limits)
    if not missing.size:
        return ()
    what = "classes have no rows" if targets.loss == "softmax" else "labels are constant"
    first = repr(names[missing[0]]) if len(names) == len(targets.limits) else missing[0]
    return (f"{missing.size} of {len(targets.limits)} {what} and were left out, the first is {first}",)


def missed(l2_lambda: float, tolerance: float, bound: float, objective: float) -> str:
    """Return the line on a point that missed its tolerance."""
    return (
        f"lambda {l2_lambda:.3g} missed tolerance {tolerance:g}: the optimum may lie {bound:.2g} below "
        f"the objective {objective:.6g}"
    )
