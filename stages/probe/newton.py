"""Newton's method for one lambda, several problems side by side, each stopped by its own certificate.

For P problems over the same rows (folds, labels) minimise, in the exact coordinates of `stages.probe.basis`,

    J(W, b) = sum of losses + (l2_lambda / 2) ||W||^2

A step solves H s = -g by conjugate gradients in float32 eigen coordinates, preconditioned by
1 / (c s_j^2 + lambda) with c the mean curvature of the loss; what was gained is measured in float64, where

    bound = J(W, b) - J(W, b*) + ||g_W(W, b*)||^2 / (2 lambda),     b* = argmin over b of J(W, .)

holds by strong convexity in W. A problem has converged at tolerance t when
bound <= t min(J - bound, J_null - J) (protocol, "The certificate").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.basis import Basis
from stages.probe.losses import Curvature, Loss

Array = NDArray[Any]

MAX_STEPS = 30
MAX_PRODUCTS = 400
REDUCTION = 1e-4
"""Of the squared gradient, at most, in one step: further digits of a float32 step are noise."""
AIM = 0.35
"""Share of the goal that a step aims for, so that its nonlinear part fits in too."""
STALLED = 0.5
INTERCEPT_ROUNDS = 8
ROUNDING = 4 * np.finfo(np.float64).eps
"""Of J: two objectives closer than this are the same float64 sum (all features constant: J = J_null)."""
HALVINGS = 20


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


@dataclass(frozen=True)
class Solver:
    """P problems and the basis they share."""

    basis: Basis
    loss: Loss
    null: Array
    """(P,) J_null."""

    def solve(self, start: Point, l2_lambda: float, tolerance: float) -> Solution:
        """Improve the start (in place) until every problem has converged or none gains any more."""
        point, passes = start, 1
        now = self.evaluate(point, l2_lambda, tolerance)
        whole = now
        active = np.flatnonzero(~now.converged)
        part, solver = point, self
        if len(active) < len(whole.goal):
            part, solver, now = point.take(active), self.take(active), now.take(active)
        dtype: type = np.float32
        for _ in range(MAX_STEPS):
            if not len(active):
                break
            step, products = solver.newton_step(now, l2_lambda, dtype)
            after, halved = solver._advance(part, now, step, l2_lambda, tolerance)
            passes += products + 1
            stuck = after.bound > STALLED * now.bound
            if stuck.any() and dtype is np.float32:
                dtype = np.float64
            elif (stuck & ~after.converged).all() and halved:
                break
            if part is point:
                whole = after
            else:
                point.put(active, part)
                whole.put(active, after)
            left = np.flatnonzero(~after.converged)
            if len(left) < len(active):
                active = active[left]
                part, solver = part.take(left), solver.take(left)
                after = after.take(left)
            now = after
        return Solution(point, whole.objective, whole.bound, whole.converged, whole, passes)

    def evaluate(self, point: Point, l2_lambda: float, tolerance: float) -> Evaluation:
        """Move the intercepts to their optimum and measure the point in float64."""
        n = len(point.logits)
        penalty = l2_lambda / 2 * np.einsum("mpk,mpk->p", point.weights, point.weights)
        residuals = np.empty_like(point.logits)
        fine = 1e-3 * tolerance * l2_lambda / (l2_lambda + self.basis.squares[0])
        for turn in range(INTERCEPT_ROUNDS):
            loss, slope = self.loss.residuals(point.logits, point.intercepts, residuals)
            if turn in (0, 1):
                curvature = self.loss.intercept_hessian(residuals)
            move = _solve_intercepts(curvature, slope)
            excess = 0.5 * (move * slope).sum(axis=1)
            if (excess <= np.maximum(fine * loss, 1e-30)).all():
                break
            point.intercepts = point.intercepts - move
        J = loss + penalty
        gradient = self.basis.backward(residuals.reshape(n, -1)).reshape(point.weights.shape)
        gradient += l2_lambda * point.weights
        bound = excess + np.einsum("mpk,mpk->p", gradient, gradient) / (2 * l2_lambda)
        goal = np.maximum(tolerance * np.minimum(J - bound, self.null - J), ROUNDING * J)
        diagonal = np.einsum("pkk->pk", curvature).copy()
        return Evaluation(J, bound, goal, gradient, slope, diagonal, residuals)

    def newton_step(
        self, now: Evaluation, l2_lambda: float, dtype: type, reduction: float = REDUCTION
    ) -> tuple[tuple[Array, Array], int]:
        """Return the Newton step (m, P, K) and (P, K) in exact coordinates, and the products it took.

        It ends where the goal is in reach, and at the latest where ||residual||^2 <= reduction ||g||^2.
        """
        m, P, K = now.gradient.shape
        scale = np.sqrt(np.einsum("mpk,mpk->p", now.gradient, now.gradient))
        scale[scale == 0] = 1
        columns = np.repeat(scale, K)
        g = (now.gradient.reshape(m, -1) / columns).astype(dtype)
        gb = (now.intercept_gradient.ravel() / columns).astype(dtype)
        rows = self.loss.seen.sum(axis=0)
        mean_curvature = np.repeat(now.intercept_curvature.mean(axis=1) / np.maximum(rows, 1), K)
        share = rows / len(self.loss.seen)
        inverse = 1 / (np.outer(self.basis.squares, mean_curvature * np.repeat(share, K)) + l2_lambda)
        floor = np.finfo(np.float32).tiny
        inverse_b = (1 / np.maximum(mean_curvature * np.repeat(rows, K), floor)).astype(dtype)
        aim = 2 * l2_lambda * AIM * np.maximum(now.goal, 0) / scale**2
        system = _System(self, self.loss.curvature(now.residuals, dtype), dtype(l2_lambda), K)
        s, sb, products = _conjugate_gradients(
            system, self.basis.to_eigen(-g), -gb, inverse.astype(dtype), inverse_b, np.maximum(aim, reduction)
        )
        weights = self.basis.from_eigen(s).astype(np.float64) * columns
        return (weights.reshape(m, P, K), (sb * columns).reshape(P, K)), products

    def _advance(
        self, point: Point, now: Evaluation, step: tuple[Array, Array], l2_lambda: float, tolerance: float
    ) -> tuple[Evaluation, bool]:
        """Take the step, halved per problem until J does not grow; the point changes in place."""
        weights, intercepts = step
        m, P, _ = weights.shape
        logits = self.basis.forward(weights.reshape(m, -1)).reshape(point.logits.shape)
        old = point.intercepts
        point.weights += weights
        point.logits += logits
        point.intercepts = old + intercepts
        taken, halved = np.ones(P), False
        for _ in range(HALVINGS):
            after = self.evaluate(point, l2_lambda, tolerance)
            worse = after.objective > now.objective * (1 + 1e-12)
            if not worse.any():
                break
            halved = True
            taken_new = np.where(worse, taken / 2, taken)
            back = (taken_new - taken)[:, None]
            point.weights += back * weights
            point.logits += back * logits
            point.intercepts = np.where(
                worse[:, None], old + taken_new[:, None] * intercepts, point.intercepts
            )
            taken = taken_new
        return after, halved

    def take(self, problems: Array) -> Solver:
        """Return the solver of some of the problems."""
        return Solver(self.basis, self.loss.take(problems), self.null[problems])


@dataclass(frozen=True)
class _System:
    """The Hessian at a point, as products in eigen coordinates."""

    solver: Solver
    curvature: Curvature
    l2_lambda: Any
    n_classes: int

    def take(self, problems: Array) -> _System:
        """Return the system of some of the problems."""
        return _System(
            self.solver.take(problems), self.curvature.take(problems), self.l2_lambda, self.n_classes
        )

    def product(self, s: Array, sb: Array) -> tuple[Array, Array]:
        """Return H (s, sb) for (m, P K) and (P K,)."""
        basis = self.solver.basis
        change = basis.eigen_forward(s)
        change += sb
        shaped = change.reshape(len(change), -1, self.n_classes)
        self.solver.loss.product(self.curvature, shaped)
        out = basis.eigen_backward(change)
        out += self.l2_lambda * s
        return out, change.sum(axis=0)


def _conjugate_gradients(
    system: _System, r: Array, rb: Array, inverse: Array, inverse_b: Array, until: Array
) -> tuple[Array, Array, int]:
    """Solve H x = r for (m, P K) and (P K,); a problem leaves when its ||r||^2 is below ``until``."""
    K = system.n_classes

    def dot(a: Array, b: Array) -> Array:
        return np.asarray(np.einsum("ij,ij->j", a, b).reshape(-1, K).sum(axis=1))

    def dot_b(a: Array, b: Array) -> Array:
        return np.asarray((a * b).reshape(-1, K).sum(axis=1))

    solution, solution_b = np.zeros_like(r), np.zeros_like(rb)
    x, xb, columns = np.zeros_like(r), np.zeros_like(rb), np.arange(len(rb))
    z, zb = inverse * r, inverse_b * rb
    p, pb = z.copy(), zb.copy()
    energy = dot(r, z) + dot_b(rb, zb)
    products = 0
    while products < MAX_PRODUCTS:
        q, qb = system.product(p, pb)
        products += 1
        curved = dot(p, q) + dot_b(pb, qb)
        length = np.repeat(np.where(curved > 0, energy / np.where(curved > 0, curved, 1), 0), K)
        length = length.astype(r.dtype)
        p_long = p * length
        x += p_long
        xb += pb * length
        q *= length
        r -= q
        rb -= qb * length
        running = (dot(r, r) > until) & (curved > 0)
        if not running.all():
            solution[:, columns], solution_b[columns] = x, xb
            if not running.any():
                break
            kept, keep = np.flatnonzero(running), np.repeat(running, K)
            system, until, energy = system.take(kept), until[kept], energy[kept]
            columns, inverse_b, xb, rb, pb = (v[keep] for v in (columns, inverse_b, xb, rb, pb))
            x, r, p, inverse = (np.ascontiguousarray(v[:, keep]) for v in (x, r, p, inverse))
        z, zb = inverse * r, inverse_b * rb
        fresh = dot(r, z) + dot_b(rb, zb)
        ratio = np.repeat(fresh / np.where(energy > 0, energy, 1), K).astype(r.dtype)
        p *= ratio
        p += z
        pb = zb + ratio * pb
        energy = fresh
    else:
        solution[:, columns], solution_b[columns] = x, xb
    return solution, solution_b, products


def _solve_intercepts(hessian: Array, slope: Array) -> Array:
    """Return H^-1 slope for (P, K, K): scaled to a unit diagonal, with the direction of ones made regular."""
    diagonal = np.einsum("pkk->pk", hessian)
    alive = diagonal > 0
    root = np.sqrt(np.where(alive, diagonal, 1))
    scaled = hessian / (root[:, :, None] * root[:, None, :])
    K = hessian.shape[1]
    index = np.arange(K)
    scaled[:, index, index] = 1
    if K > 1:
        ones = np.where(alive, root, 0)
        ones /= np.maximum(np.linalg.norm(ones, axis=1, keepdims=True), 1e-300)
        scaled += ones[:, :, None] * ones[:, None, :]
    right = np.where(alive, slope / root, 0)
    return np.where(alive, np.linalg.solve(scaled, right[..., None])[..., 0] / root, 0)
