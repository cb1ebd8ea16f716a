"""From strong to weak lambda: where the next point starts, and the walk itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.newton import Solver
from stages.probe.points import Point, Solution

Array = NDArray[Any]

LONGEST_STEP = 10**0.5
"""Ratio of neighbouring lambdas; wider gaps of the grid get points in between."""
LOOSE = 1e-2
"""Tolerance of the points in between, which are thrown away."""
FIRST = 0.1
"""A walk starts where lambda is at least this share of the largest eigenvalue of the null Hessian."""
KEPT_LOGITS_BYTES = 64 << 20
SAMPLE_ROWS = 4096
GROWTH_ROWS = 200


@dataclass
class Trail:
    """The last points of a walk, extrapolated along log lambda.

    With increments d_1 (last) and d_2 of the logits per unit of log lambda, the next increment is
    rho d_1, rho = <d_1, d_2> / ||d_2||^2: exact where W goes like 1 / lambda (strong lambda) and where it
    goes like log lambda (weak lambda). It is linear in the points, so the logits need no product.
    """

    solver: Solver
    keep_logits: bool
    points: list[tuple[float, Point]] = field(default_factory=list)

    def add(self, l2_lambda: float, point: Point) -> None:
        """Remember a point; without room for logits only a sample of their rows."""
        if not self.keep_logits:
            point = Point(point.weights, point.intercepts, point.logits[:SAMPLE_ROWS].copy())
        self.points = [*self.points[-2:], (float(np.log(l2_lambda)), point)]

    def predict(self, l2_lambda: float) -> Point:
        """Return a fresh point at which to start."""
        at, last = self.points[-1]
        if len(self.points) == 1:
            guess = Point(last.weights.copy(), last.intercepts.copy(), last.logits.copy())
        else:
            before, previous = self.points[-2]
            stretch = (np.log(l2_lambda) - at) / (at - before)
            factor = np.minimum(stretch, 2) * self._growth()[:, None]
            guess = Point(
                _beyond(last.weights, previous.weights, factor),
                _beyond(last.intercepts, previous.intercepts, factor),
                _beyond(last.logits, previous.logits, factor),
            )
        if not self.keep_logits:
            m, P, K = guess.weights.shape
            guess.logits = self.solver.basis.forward(guess.weights.reshape(m, -1)).reshape(-1, P, K)
        return guess

    def _growth(self) -> Array:
        """Return rho of each problem, (P,)."""
        if len(self.points) < 3:
            return np.ones(self.points[-1][1].logits.shape[1])
        (x3, p3), (x2, p2), (x1, p1) = self.points
        some = slice(None, None, max(1, len(p1.logits) // GROWTH_ROWS))
        middle = p2.logits[some]
        d1, d2 = (p1.logits[some] - middle) / (x1 - x2), (middle - p3.logits[some]) / (x2 - x3)
        square = np.einsum("npk,npk->p", d2, d2)
        product = np.einsum("npk,npk->p", d1, d2)
        return np.asarray(np.clip(product / np.where(square > 0, square, 1), 0.5, 3.0))


def _beyond(last: Array, previous: Array, factor: Array) -> Array:
    """Return last + factor (last - previous)."""
    out = last - previous
    out *= factor
    out += last
    return out


def walk(
    solver: Solver, grid: Sequence[float] | Array, tolerance: float, start: Point | None = None
) -> Iterator[tuple[float, Solution]]:
    """Solve at every lambda of a descending grid, points in between included but not yielded.

    Parameters
    ----------
    solver
        The problems.
    grid
        Strictly descending.
    tolerance
        Of the certificate.
    start
        A point near the solution at the first lambda; None: from W = 0, by way of stronger lambdas.
    """
    n, P, K = solver.basis.rows, len(solver.null), solver.loss.null()[1].shape[1]
    trail = Trail(solver, 8 * n * P * K <= KEPT_LOGITS_BYTES)
    steps = list(_steps(solver, np.asarray(grid, dtype=np.float64), start is None))
    for l2_lambda, wanted in steps:
        if trail.points:
            point = trail.predict(l2_lambda)
        elif start is not None:
            point = start
        else:
            point = Point(
                np.zeros((solver.basis.size, P, K)), solver.loss.null()[1].copy(), np.zeros((n, P, K))
            )
        solution = solver.solve(point, l2_lambda, tolerance if wanted else max(tolerance, LOOSE))
        trail.add(l2_lambda, solution.point)
        if wanted:
            yield l2_lambda, solution


def _steps(solver: Solver, grid: Array, from_null: bool) -> Iterator[tuple[float, bool]]:
    """Yield (lambda, wanted), with points in between where the way is long."""
    _, intercepts = solver.loss.null()
    p = 1 / (1 + np.exp(-np.clip(intercepts, -50, 50)))
    if intercepts.shape[1] > 1:
        p = np.exp(np.maximum(intercepts, -50))
    first = FIRST * float((p * (1 - p)).mean()) * float(solver.basis.squares[0])
    previous = max(first, grid[0]) if from_null else grid[0]
    if previous > grid[0]:
        yield previous, False
    for l2_lambda in grid:
        between = int(np.ceil(np.log(previous / l2_lambda) / np.log(LONGEST_STEP) - 1e-6)) - 1
        if between > 0:
            for value in np.geomspace(previous, l2_lambda, between + 2)[1:-1]:
                yield float(value), False
        yield float(l2_lambda), True
        previous = l2_lambda
