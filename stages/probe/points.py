"""Candidates of several problems side by side, and what float64 says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


LEAST_GOAL = 1e-12
"""Share of the bound that counts as a goal where there is none: strains stay finite."""


@dataclass
class Point:
    """A candidate solution of P problems."""

    weights: Array
    """(P, K, d)."""
    intercepts: Array
    """(P, K)."""
    logits: Array
    """(n, P, K) without the intercepts."""
    drift: Array
    """(P,) how far the logits may lie from the weights' own, by rounding: a Frobenius norm."""

    def take(self, problems: Array) -> Point:
        """Return some of the problems."""
        return Point(
            self.weights[problems],
            self.intercepts[problems],
            np.ascontiguousarray(self.logits[:, problems]),
            self.drift[problems],
        )

    def put(self, problems: Array, other: Point) -> None:
        """Overwrite some of the problems."""
        self.weights[problems] = other.weights
        self.intercepts[problems] = other.intercepts
        self.logits[:, problems] = other.logits
        self.drift[problems] = other.drift


@dataclass
class Evaluation:
    """What float64 says of a point."""

    objective: Array
    """(P,)."""
    bound: Array
    """(P,) the optimum lies no more than this below."""
    goal: Array
    """(P,) the bound at which a problem has converged; not positive where J is no better than J_null."""
    blur: Array
    """(P,) the part of the bound that stands for the drift of the logits."""
    gradient: Array
    """(P, K, d) by the weights."""
    intercept_gradient: Array
    """(P, K)."""
    intercept_hessian: Array
    """(P, K, K) of J by b."""
    intercept_inverse: Array
    """(P, K, K)."""
    residuals: Array
    """(n, P, K)."""

    @property
    def converged(self) -> Array:
        """(P,) whether the goal was met."""
        return self.bound <= self.goal

    @property
    def strain(self) -> float:
        """Largest bound in units of its goal."""
        least = np.maximum(LEAST_GOAL * np.minimum(self.bound, 1 / LEAST_GOAL), np.finfo(np.float64).tiny)
        return float(np.minimum(self.bound / np.maximum(self.goal, least), 1 / LEAST_GOAL).max())

    def take(self, problems: Array) -> Evaluation:
        """Return what is known of some of the problems."""
        return Evaluation(
            self.objective[problems],
            self.bound[problems],
            self.goal[problems],
            self.blur[problems],
            self.gradient[problems],
            self.intercept_gradient[problems],
            self.intercept_hessian[problems],
            self.intercept_inverse[problems],
            np.ascontiguousarray(self.residuals[:, problems]),
        )

    def put(self, problems: Array, other: Evaluation) -> None:
        """Overwrite what is known of some of the problems."""
        self.objective[problems], self.bound[problems] = other.objective, other.bound
        self.goal[problems], self.blur[problems] = other.goal, other.blur
        self.gradient[problems] = other.gradient
        self.intercept_gradient[problems] = other.intercept_gradient
        self.intercept_hessian[problems] = other.intercept_hessian
        self.intercept_inverse[problems] = other.intercept_inverse
        self.residuals[:, problems] = other.residuals


@dataclass
class Solution:
    """Where a solve ended."""

    point: Point
    objective: Array
    bound: Array
    converged: Array
    evaluation: Evaluation
    """Of the point."""
    passes: int
    """Over the features, forth and back."""
    opening: float
    """`Evaluation.strain` of the start."""

    def turned(self, columns: Array, rounding: Array) -> Solution:
        """Return the solution with its weights in other coordinates, ``weights @ columns``.

        ``rounding`` (P,) is what that may move the logits by.
        """
        point = replace(self.point, weights=self.point.weights @ columns, drift=self.point.drift + rounding)
        seen = replace(self.evaluation, gradient=self.evaluation.gradient @ columns)
        return replace(self, point=point, evaluation=seen)
