"""How far a solution may lie from its optimum: two certificates in float64.

With J(W, b) = sum of losses + (l2_lambda / 2) ||W||^2, strongly convex in W once b is minimised out,

    bound    = J(W, b) - J(W, b*) + ||g_W(W, b*)||^2 / (2 l2_lambda),   b* = argmin over b of J(W, .)
    estimate = g' H^-1 g / 2 at (W, b*), half the squared Newton decrement

The bound is the duality gap and holds always; the estimate is what the gap most likely is (protocol, "The
certificate"). The solver measures both in its exact coordinates; `certify` measures any solution, of whatever
origin, on the features themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.errors import ProbeError
from stages.probe.basis import Basis, plain_basis
from stages.probe.losses import make_loss
from stages.probe.newton import Solver
from stages.probe.points import Evaluation, Point
from stages.probe.targets import (
    Targets,
    check_features,
    check_fittable,
    check_labels,
    check_lambdas,
    check_tolerance,
    make_targets,
)

Array = NDArray[Any]

ESTIMATE_SHARE = 0.01
"""The conjugate gradients behind an estimate end when two steps in a row gained no more than this of it."""


def estimate(solver: Solver, now: Evaluation, l2_lambda: float) -> float:
    """Return g' H^-1 g / 2 summed over the problems.

    Products with the true Hessian in float64: in float32 a curvature that nearly vanishes comes out too
    large, and the estimate too small. Every step adds a positive part, so that the sum is never too large.
    """
    if not now.gradient.any():
        return 0.0
    return float(solver.decrement(now, l2_lambda, ESTIMATE_SHARE).sum())


@dataclass(frozen=True)
class Certificate:
    """What float64 says of a solution at one lambda."""

    objective: float
    """J(W, b*): the intercepts are moved to their optimum first."""
    bound: float
    """The optimum lies no more than this below."""
    null_objective: float
    """J_null, the optimum at W = 0."""
    converged: bool
    """Whether bound <= tolerance * min(J - bound, J_null - J), for every label."""


def certify(
    features: NDArray[np.floating[Any]],
    labels: ArrayLike,
    coefficients: Array,
    intercepts: Array,
    l2_lambda: float,
    *,
    tolerance: float = 1e-3,
    n_classes: int | None = None,
) -> Certificate:
    """Measure a solution of whatever origin in float64 on the features themselves.

    Parameters
    ----------
    features, labels, n_classes
        As in `stages.probe.fit_path`.
    coefficients
        (K, d), or (1, d) for two classes.
    intercepts
        (K,) or (1,); where to start the search for b*.
    l2_lambda
        Of the objective, on the sum of losses.
    tolerance
        Of the rule for ``converged``.

    Returns
    -------
    Certificate
        Figures summed over labels.

    Raises
    ------
    ProbeError
        As in `fit_path`, and coefficients of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> features = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
    >>> at_zero = certify(features, [0, 0, 1], np.zeros((1, 1)), np.zeros(1), 1.0)
    >>> round(at_zero.objective, 4), round(at_zero.bound, 4)
    (1.9095, 0.5)
    """
    features = check_features(np.asanyarray(features))
    targets = make_targets(check_labels(labels, len(features), n_classes), n_classes)
    check_fittable(targets)
    coefficients = np.asarray(coefficients, dtype=np.float64)
    if coefficients.shape != (len(targets.limits), features.shape[1]):
        raise ProbeError(
            f"coefficients have shape {coefficients.shape}: expected {len(targets.limits)} outputs "
            f"of {features.shape[1]} features"
        )
    bias = np.asarray(intercepts, dtype=np.float64)
    if bias.shape != (len(coefficients),):
        raise ProbeError(
            f"intercepts have shape {bias.shape}: give one for each of {len(coefficients)} outputs"
        )
    check_lambdas([l2_lambda])
    check_tolerance(tolerance)
    basis = plain_basis(features)
    loss = make_loss(targets, np.ones((len(features), 1)))
    null = loss.null()[0]
    point = point_at(basis, targets, coefficients, bias)
    now = Solver(basis, loss, null).evaluate(point, l2_lambda, tolerance)
    return Certificate(
        float(now.objective.sum()), float(now.bound.sum()), float(null.sum()), bool(now.converged.all())
    )


def point_at(basis: Basis, targets: Targets, coefficients: Array, intercepts: Array) -> Point:
    """Return a solution in the solver's coordinates, from coefficients (outputs, d) of the features."""
    weights = coefficients[targets.present]
    bias = intercepts[targets.present] + weights @ basis.mean
    if basis.turn is not None:
        weights = weights @ basis.turn.T
    side = 1 if targets.loss == "sigmoid" else 0
    logits = np.expand_dims(basis.forward(weights), 1 + side)
    weights = np.expand_dims(weights, side)
    return Point(weights, np.expand_dims(bias, side), logits, basis.rounding(weights))
