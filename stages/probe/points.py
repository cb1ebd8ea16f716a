"""Candidates of several problems side by side, and what float64 says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Point:
    """A candidate solution of P problems."""

    weights: Array
    """(m, P, K) exact coordinates."""
    intercepts: Array
    """(P, K)."""
    logits: Array
    """(n, P, K) without the intercepts."""

    def take(self, problems: Array) -> Point:
        """Return some of the problems."""
        return Point(
            np.ascontiguousarray(self.weights[:, problems]),
            self.intercepts[problems],
            np.ascontiguousarray(self.logits[:, problems]),
        )

    def put(self, problems: Array, other: Point) -> None:
        """Overwrite some of the problems."""
        self.weights[:, problems] = other.weights
        self.intercepts[problems] = other.intercepts
        self.logits[:, problems] = other.logits


@dataclass
class Evaluation:
    """What float64 says of a point."""

    objective: Array
    """(P,)."""
    bound: Array
    """(P,) the optimum lies no more than this below."""
    goal: Array
    """(P,) the bound at which a problem has converged; not positive where J is no better than J_null."""
    gradient: Array
    """(m, P, K) by the weights, exact coordinates."""
    intercept_gradient: Array
    """(P, K)."""
    intercept_curvature: Array
    """(P, K) diagonal of the Hessian by b."""
    residuals: Array
    """(n, P, K)."""

    @property
    def converged(self) -> Array:
        """(P,) whether the goal was met."""
        return self.bound <= self.goal

    def take(self, problems: Array) -> Evaluation:
        """Return what is known of some of the problems."""
        return Evaluation(
            self.objective[problems],
            self.bound[problems],
            self.goal[problems],
            np.ascontiguousarray(self.gradient[:, problems]),
            self.intercept_gradient[problems],
            self.intercept_curvature[problems],
            np.ascontiguousarray(self.residuals[:, problems]),
        )

    def put(self, problems: Array, other: Evaluation) -> None:
        """Overwrite what is known of some of the problems."""
        self.objective[problems], self.bound[problems] = other.objective, other.bound
        self.goal[problems] = other.goal
        self.gradient[:, problems] = other.gradient
        self.intercept_gradient[problems] = other.intercept_gradient
        self.intercept_curvature[problems] = other.intercept_curvature
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
