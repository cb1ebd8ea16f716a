"""The intercepts at their optimum for given weights: Newton's method on a small dense problem.

The losses are self-concordant in the generalised sense (Bach, "Self-concordant analysis for logistic
regression", 2010): where a Newton step changes two intercepts by r against each other, a step shortened to
log(1 + r) / r lowers the loss wherever it starts from, and costs nothing near the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.gradients import DEAD, invert_intercepts
from stages.probe.losses import Loss
from stages.probe.points import Point

Array = NDArray[Any]

ROUNDS = 60
NEAR = 0.1
"""A step that changes no two intercepts more than this against each other leaves the Hessian as it is."""
CONTRACTION = 0.25
"""What a near step leaves of the excess at most; where more is left, the rest is rounding."""
LOST_SLOPE = 1e-10
"""Rows that pull at an intercept without curvature: it lies where no step finds back."""
LOST_SHARE = 1e-6
"""Of the slope, where the Hessian has no inverse: what is left of it after a step is not rounding."""


@dataclass(frozen=True)
class Settled:
    """The losses at the best intercepts."""

    loss: Array
    """(P,)."""
    slope: Array
    """(P, K) gradient by the intercepts that is left."""
    hessian: Array
    """(P, K, K)."""
    inverse: Array
    """(P, K, K)."""
    excess: Array
    """(P,) what the intercepts may still gain; infinite where one of them is lost."""


def settle(loss: Loss, point: Point, residuals: Array, enough: Callable[[Array], Array]) -> Settled:
    """Move the intercepts of a point to their optimum and write the residuals there.

    Parameters
    ----------
    loss
        Of P problems.
    point
        Its intercepts are moved.
    residuals
        (n, P, K), overwritten.
    enough
        From the losses (P,), the excess (P,) at which a problem may stop.
    """
    far, before = np.ones(len(point.intercepts), dtype=np.bool_), np.full(len(point.intercepts), np.inf)
    for turn in range(ROUNDS):
        value, slope = loss.residuals(point.logits, point.intercepts, residuals)
        if far.any():
            hessian = loss.intercept_hessian(residuals)
            inverse, singular = invert_intercepts(hessian)
        move = (inverse @ slope[..., None])[..., 0]
        excess = np.maximum(0.5 * (move * slope).sum(axis=1), 0)
        lost = (np.einsum("pkk->pk", hessian) <= DEAD) & (np.abs(slope) > LOST_SLOPE)
        if singular:
            left = slope - (hessian @ move[..., None])[..., 0]
            lost |= np.abs(left) > np.maximum(
                LOST_SHARE * np.abs(slope).max(axis=1, keepdims=True), LOST_SLOPE
            )
        excess[lost.any(axis=1)] = np.inf
        open_ = excess > enough(value)
        stalled = ~far & (excess > CONTRACTION * before)
        if not (open_ & ~stalled).any() or turn + 1 == ROUNDS:
            break
        spread = np.abs(move).max(axis=1) if move.shape[1] == 1 else np.ptp(move, axis=1)
        far, before = (spread > NEAR) | lost.any(axis=1), excess
        damped = np.log1p(spread) / np.where(spread > 0, spread, 1)
        point.intercepts = point.intercepts - move * np.where(spread > 0, damped, 1)[:, None]
        if lost.any():
            point.intercepts = np.where(lost.any(axis=1)[:, None], loss.null()[1], point.intercepts)
    return Settled(value, slope, hessian, inverse, excess)
