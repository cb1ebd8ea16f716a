"""From strong to weak lambda: where the next point starts, and the walk itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.newton import Solver
from stages.probe.points import Point, Solution
from stages.probe.span import step_in_span

Array = NDArray[Any]

LONGEST_STEP = 10**0.5
"""Ratio of neighbouring lambdas; wider gaps of the grid get points in between."""
LOOSE = 1e-2
"""Tolerance of the points in between, which are thrown away."""
FIRST = 0.1
"""A walk starts where lambda is at least this share of the largest eigenvalue of the null Hessian."""
INCREMENTS = 2
FINE = 1e-5
"""Tolerance below which float32 is too coarse to tell increments apart."""
STRAIN = 1e-3
"""Least strain from which growth to the next lambda is reckoned."""
PATIENCE = 120
"""Passes at one lambda after which the walk goes on in coordinates that tell all directions apart."""
KEPT_LOGITS_BYTES = 64 << 20
SAMPLE_ROWS = 4096
GROWTH_ROWS = 200


@dataclass(frozen=True)
class Increment:
    """From one point of a walk to the next."""

    width: float
    """Of log lambda."""
    by: Point
    change: Array
    """(n, P, K) of the logits, intercepts included, in the dtype of the model."""


@dataclass
class Trail:
    """The last point of a walk and the increments before it, extrapolated along log lambda.

    With increments d_1 (last) and d_2 of the logits per unit of log lambda, the next increment is first
    rho d_1, rho = <d_1, d_2> / ||d_2||^2: exact where W goes like 1 / lambda (strong lambda) and where it
    goes like log lambda (weak lambda). One Newton step in the span of the increments corrects it. All of it
    is linear in the points, so the logits need no product.
    """

    solver: Solver
    keep_logits: bool
    dtype: type
    at: float = 0.0
    last: Point | None = None
    increments: list[Increment] = field(default_factory=list)

    def add(self, l2_lambda: float, point: Point) -> None:
        """Remember a point; without room for logits only a sample of their rows."""
        if not self.keep_logits:
            point = Point(point.weights, point.intercepts, point.logits[:SAMPLE_ROWS].copy(), point.drift)
        at, last = float(np.log(l2_lambda)), self.last
        if last is not None:
            by = Point(
                point.weights - last.weights,
                point.intercepts - last.intercepts,
                point.logits - last.logits,
                point.drift + last.drift,
            )
            change: Array = (by.logits + by.intercepts).astype(self.dtype, copy=False)
            self.increments = [Increment(self.at - at, by, change), *self.increments[: INCREMENTS - 1]]
        self.at, self.last = at, point

    def predict(self, l2_lambda: float) -> Point:
        """Return a fresh point at which to start."""
        assert self.last is not None
        last, P = self.last, len(self.last.intercepts)
        guess = Point(last.weights.copy(), last.intercepts.copy(), last.logits.copy(), last.drift.copy())
        if self.increments:
            stretch = (self.at - np.log(l2_lambda)) / self.increments[0].width
            factors = np.zeros((P, len(self.increments)))
            factors[:, 0] = np.minimum(stretch, 2) * self._growth()
            if self.keep_logits:
                factors += self._correction(factors[:, :1], l2_lambda)
            for factor, increment in zip(factors.T[:, :, None], self.increments, strict=True):
                guess.weights += factor[..., None] * increment.by.weights
                guess.intercepts += factor * increment.by.intercepts
                guess.logits += factor * increment.by.logits
                guess.drift += np.abs(factor[:, 0]) * increment.by.drift
        if not self.keep_logits:
            K, d = guess.weights.shape[1:]
            guess.logits = self.solver.basis.forward(guess.weights.reshape(-1, d)).reshape(-1, P, K)
            guess.drift = np.zeros(P)
        guess.drift += self.solver.basis.rounding(guess.weights)
        return guess

    def _growth(self) -> Array:
        """Return rho of each problem, (P,)."""
        if len(self.increments) < 2:
            return np.ones(len(self.increments[0].by.intercepts))
        some = slice(None, None, max(1, len(self.increments[0].change) // GROWTH_ROWS))
        d1, d2 = (i.by.logits[some] / i.width for i in self.increments[:2])
        square = np.einsum("npk,npk->p", d2, d2)
        product = np.einsum("npk,npk->p", d1, d2)
        return np.asarray(np.clip(product / np.where(square > 0, square, 1), 0.5, 3.0))

    def _correction(self, factor: Array, l2_lambda: float) -> Array:
        """Return what to add to the factors (P, q) after ``factor`` (P, 1) of the first increment."""
        assert self.last is not None
        first = self.increments[0]
        logits: Array = factor.astype(self.dtype) * first.change
        logits += self.last.logits
        weights = self.last.weights + factor[..., None] * first.by.weights
        base = Point(weights, self.last.intercepts, logits, self.last.drift)
        increments, changes = [i.by for i in self.increments], [i.change for i in self.increments]
        return step_in_span(self.solver.loss, base, increments, changes, l2_lambda)


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
    n, (P, K) = solver.basis.rows, solver.loss.null()[1].shape
    dtype = np.float64 if tolerance < FINE else np.float32
    trail = Trail(solver, 8 * n * P * K <= KEPT_LOGITS_BYTES, dtype)
    steps = list(_steps(solver, np.asarray(grid, dtype=np.float64), start is None))
    strain, growth, home = 1.0, 1.0, None
    for l2_lambda, wanted in steps:
        if trail.last is not None:
            point = trail.predict(l2_lambda)
        elif start is not None:
            point = start
        else:
            zeros = np.zeros((P, K, solver.basis.size)), solver.loss.null()[1].copy()
            point = Point(*zeros, np.zeros((n, P, K)), np.zeros(P))
        aim = tolerance if wanted else max(tolerance, LOOSE)
        patience = PATIENCE if home is None and solver.basis.may_turn else np.inf
        doubtful = tolerance >= FINE and strain * growth > 1
        solution = solver.solve(point, l2_lambda, aim, doubtful=doubtful, patience=patience)
        if solution.passes > patience and (turned := solver.basis.turned()) is not None:
            home, solver = turned[1], replace(solver, basis=turned[0])
            moved = solution.turned(home, solver.basis.rounding(solution.point.weights))
            trail, passes = Trail(solver, trail.keep_logits, dtype), solution.passes
            solution = solver.solve(moved.point, l2_lambda, aim)
            solution.passes += passes
        trail.add(l2_lambda, solution.point)
        growth = solution.opening / strain
        strain = max(solution.evaluation.strain, STRAIN)
        if wanted and home is None:
            yield l2_lambda, solution
        elif wanted and home is not None:
            yield l2_lambda, solution.turned(home.T, solver.basis.rounding(solution.point.weights))


def _steps(solver: Solver, grid: Array, from_null: bool) -> Iterator[tuple[float, bool]]:
    """Yield (lambda, wanted), with points in between where the way is long."""
    _, intercepts = solver.loss.null()
    p = 1 / (1 + np.exp(-np.clip(intercepts, -50, 50)))
    if intercepts.shape[1] > 1:
        p = np.exp(np.maximum(intercepts, -50))
    largest = float(solver.basis.squares[0]) if len(solver.basis.squares) else 0.0
    first = FIRST * float((p * (1 - p)).mean()) * largest
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
