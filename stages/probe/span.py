"""One Newton step within the span of a few increments: where to start at the next lambda.

The logits of a combination of points are the same combination of their logits, so that gradient and Hessian
by the coefficients need no product with the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.gradients import dots
from stages.probe.losses import Loss
from stages.probe.points import Point

Array = NDArray[Any]

LONGEST = 1.0
"""A coefficient, in increments: beyond it the quadratic model is not trusted."""
SINGULAR = {np.float32: 1e-5, np.float64: 1e-11}
"""Share of the largest eigenvalue below which a direction of the scaled Hessian is noise."""


def step_in_span(
    loss: Loss, base: Point, increments: Sequence[Point], changes: Sequence[Array], l2_lambda: float
) -> Array:
    """Return the coefficients (P, q) that minimise the quadratic model of J at ``base``.

    Parameters
    ----------
    loss
        Of P problems.
    base
        Its logits set the dtype in which the model is made.
    increments
        q increments; of these only the weights are read.
    changes
        Of the logits by each increment, intercepts included: (n, P, K) in the dtype of the base.
    l2_lambda
        Of the objective.
    """
    dtype = base.logits.dtype.type
    residuals = np.empty_like(base.logits)
    loss.residuals(base.logits, base.intercepts, residuals)
    curvature = loss.curvature(residuals, dtype)
    q, P = len(changes), residuals.shape[1]
    gradient, hessian = np.empty((P, q)), np.empty((P, q, q))
    for i, change in enumerate(changes):
        gradient[:, i] = _by_problem(residuals, change)
        gradient[:, i] += l2_lambda * dots(base.weights, increments[i].weights)
        bent = change.copy()
        loss.product(curvature, bent)
        for j in range(i + 1):
            entry = _by_problem(bent, changes[j])
            entry += l2_lambda * dots(increments[i].weights, increments[j].weights)
            hessian[:, i, j] = hessian[:, j, i] = entry
    return _solve(hessian, -gradient, SINGULAR[dtype])


def _by_problem(a: Array, b: Array) -> Array:
    """Return the inner product of each problem of (n, P, K), in float64."""
    if a.shape[1] == 1:
        return np.array([float(np.vdot(a, b))])
    return np.asarray(np.einsum("npk,npk->p", a, b), dtype=np.float64)


def _solve(hessian: Array, right: Array, singular: float) -> Array:
    """Return H^-1 right without its noise, no coefficient longer than `LONGEST`."""
    root = np.sqrt(np.maximum(np.einsum("pqq->pq", hessian), np.finfo(np.float64).tiny))
    values, vectors = np.linalg.eigh(hessian / (root[:, :, None] * root[:, None, :]))
    seen = values > singular * values[:, -1:]
    inner = np.einsum("pij,pi->pj", vectors, right / root) * seen / np.where(seen, values, 1)
    found = np.einsum("pij,pj->pi", vectors, inner) / root
    longest = np.abs(found).max(axis=1, keepdims=True)
    return np.asarray(found * np.minimum(1, LONGEST / np.maximum(longest, LONGEST)))
