"""Newton's method for one lambda, several problems side by side, each stopped by its own certificate.

For P problems over the same rows (folds, labels) minimise

    J(W, b) = sum of losses + (l2_lambda / 2) ||W||^2

A step solves H s = -g by preconditioned conjugate gradients in float32; what was gained is measured in
float64, where

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
from stages.probe.gradients import System, conjugate_gradients, dots, energies
from stages.probe.intercepts import settle
from stages.probe.losses import Loss
from stages.probe.points import Evaluation, Point, Solution
from stages.probe.preconditioner import make_preconditioner

Array = NDArray[Any]

MAX_STEPS = 30
REDUCTION = 1e-4
"""Of the squared gradient, at most, in one step: further digits of a float32 step are noise."""
AIM = 0.35
"""Share of the goal that a step aims for, so that its nonlinear part fits in too."""
STALLED = 0.5
FALLING = 1e-3
"""Relative gain of J that is worth another step though the bound says nothing yet, as it does far out."""
INTERCEPT_SHARE = 1e-4
"""Of the tolerance: what J(W, b) - J(W, b*) may add to the bound, by way of the gradient as well."""
ROUNDING = 4 * np.finfo(np.float64).eps
"""Of J: two objectives closer than this are the same float64 sum (all features constant: J = J_null)."""
HALVINGS = 20
ALIGNED = 3
"""How far roundings of many rows may add up beyond what independent ones do (held against long double)."""
MEASURED = 1.01
"""Drift in units of `Basis.rounding` up to which the logits were just formed."""
BLUR = 0.1
"""Share of the goal that the drift of the logits may take up before they are formed anew."""


@dataclass(frozen=True)
class Solver:
    """P problems and the basis they share."""

    basis: Basis
    loss: Loss
    null: Array
    """(P,) J_null."""

    def solve(
        self,
        start: Point,
        l2_lambda: float,
        tolerance: float,
        *,
        doubtful: bool = False,
        patience: float = np.inf,
    ) -> Solution:
        """Improve the start (in place) until every problem has converged or none gains any more.

        A ``doubtful`` start is first measured in float32, which may find it wanting and never good. Beyond
        ``patience`` passes no further step is begun.
        """
        point, passes = start, 1
        now = self.evaluate(point, l2_lambda, tolerance, coarse=doubtful, floor=False)
        now = self._sharpened(point, now, l2_lambda, tolerance, floor=False)
        whole, opening = now, now.strain
        active = np.flatnonzero(~now.converged)
        part, solver = point, self
        if len(active) < len(whole.goal):
            part, solver, now = point.take(active), self.take(active), now.take(active)
        dtype: type = np.float32
        for _ in range(MAX_STEPS):
            if not len(active) or passes > patience:
                break
            step, products = solver.newton_step(now, l2_lambda, dtype)
            if not all(np.isfinite(part_of).all() for part_of in step):
                if dtype is np.float64:
                    break
                dtype, passes = np.float64, passes + products
                continue
            after, halved = solver._advance(part, now, step, l2_lambda, tolerance)
            after = solver._sharpened(part, after, l2_lambda, tolerance)
            passes += products + 1
            if part is point:
                whole = after
            else:
                point.put(active, part)
                whole.put(active, after)
            stuck = (after.bound > STALLED * now.bound) & ~after.converged
            falling = after.objective < (1 - FALLING) * now.objective
            if stuck.any() and dtype is np.float32:
                dtype = np.float64
            elif (stuck & ~falling).all() and halved:
                break
            left = np.flatnonzero(~after.converged)
            if len(left) < len(active):
                active = active[left]
                part, solver = part.take(left), solver.take(left)
                after = after.take(left)
            now = after
        return Solution(point, whole.objective, whole.bound, whole.converged, whole, passes, opening)

    def evaluate(
        self, point: Point, l2_lambda: float, tolerance: float, *, coarse: bool = False, floor: bool = True
    ) -> Evaluation:
        """Move the intercepts to their optimum and measure the point in float64.

        A ``coarse`` measurement forms the gradient in float32 first and ends there if nothing has converged.
        Without a ``floor`` a problem has converged by the rule alone, and not because what is left to gain is
        less than the last digit of J.
        """
        penalty = l2_lambda / 2 * dots(point.weights, point.weights)
        residuals = np.empty_like(point.logits)
        top = self.basis.total
        fine = INTERCEPT_SHARE * tolerance * l2_lambda / (l2_lambda + top)

        def enough(loss: Array) -> Array:
            J = loss + penalty
            scale = np.minimum(J, np.abs(self.null - J))
            return np.asarray(fine * np.maximum(scale, ROUNDING * np.minimum(J, self.null)))

        best = settle(self.loss, point, residuals, enough)
        J = best.loss + penalty
        rounding = ROUNDING * np.minimum(J, self.null)
        for dtype in (np.float32, np.float64) if coarse else (np.float64,):
            flat = residuals.reshape(len(residuals), -1).astype(dtype, copy=False)
            gradient = l2_lambda * point.weights
            gradient += self.basis.backward(flat).reshape(gradient.shape)
            # What is left of b - b* moves the gradient by no more than sqrt(top * excess): ||H|| <= top / 2.
            norm = np.sqrt(dots(gradient, gradient)) + np.sqrt(top * best.excess)
            blur = self._blur(point, residuals, norm, l2_lambda)
            bound = best.excess + norm**2 / (2 * l2_lambda) + blur
            goal = tolerance * np.minimum(J - bound, self.null - J)
            if floor:
                goal = np.where(self.null + rounding >= J, np.maximum(goal, rounding), goal)
            if (bound > goal).all():
                break
        return Evaluation(J, bound, goal, blur, gradient, best.slope, best.hessian, best.inverse, residuals)

    def _blur(self, point: Point, residuals: Array, norm: Array, l2_lambda: float) -> Array:
        """Return what the drift of the logits may add to the bound, (P,).

        A row's part of the drift goes like its length. Rows that are the same round alike, all others
        independently of each other: what the drift of a row moves J by, its residual, and the gradient, the
        row times its curvature, adds up within the former and as squares among the latter. The curvature of
        a row is at most 1 / 2, and at most twice its residual.
        """
        drift = ALIGNED * point.drift
        sizes = np.sqrt(np.einsum("npk,npk->np", residuals, residuals))
        bends, shares, twins = np.minimum(0.5, 2 * sizes), self.basis.shares, self.basis.twins
        if twins is not None:
            sizes, bends, shares = twins.add_up(sizes), twins.add_up(bends), twins.first(shares)
        moved = drift * np.sqrt(self.basis.total * (shares**2 @ bends**2))
        return np.asarray(drift * np.sqrt(shares @ sizes**2) + (norm + moved / 2) * moved / l2_lambda)

    def newton_step(self, now: Evaluation, l2_lambda: float, dtype: type) -> tuple[tuple[Array, Array], int]:
        """Return the Newton step (P, K, d) and (P, K), and the products it took.

        It ends where the goal is in reach, and at the latest where ||residual||^2 <= REDUCTION ||g||^2.
        """
        scale = np.sqrt(dots(now.gradient, now.gradient))
        scale[scale == 0] = 1
        r: Array = (now.gradient / -scale[:, None, None]).astype(dtype)
        aim = 2 * l2_lambda * AIM * np.maximum(now.goal, 0) / scale**2
        until = np.maximum(aim, REDUCTION)
        s, sb, products = conjugate_gradients(self._system(now, l2_lambda, dtype), r, until)
        # The intercepts go to their optimum for the new weights, and what was left before the step with them.
        left = (now.intercept_inverse @ now.intercept_gradient[..., None])[..., 0]
        return (s.astype(np.float64) * scale[:, None, None], sb * scale[:, None] - left), products

    def decrement(self, now: Evaluation, l2_lambda: float, share: float) -> Array:
        """Return g' H^-1 g / 2 of each problem, (P,), to about ``share`` of it."""
        scale = np.sqrt(dots(now.gradient, now.gradient))
        scale[scale == 0] = 1
        system = self._system(now, l2_lambda, np.float64)
        return np.asarray(energies(system, now.gradient / scale[:, None, None], share) * scale**2)

    def _system(self, now: Evaluation, l2_lambda: float, dtype: type) -> System:
        """Return the Hessian at a point, as products."""
        inverse = make_preconditioner(self.basis, now.intercept_hessian, l2_lambda, dtype)
        curvature = self.loss.curvature(now.residuals, dtype)
        intercepts: Array = now.intercept_inverse.astype(dtype)
        return System(self.basis, self.loss, curvature, dtype(l2_lambda), intercepts, inverse)

    def _advance(
        self, point: Point, now: Evaluation, step: tuple[Array, Array], l2_lambda: float, tolerance: float
    ) -> tuple[Evaluation, bool]:
        """Take the step, halved per problem until J does not grow; the point changes in place."""
        weights, intercepts = step
        logits = self.basis.forward(weights.reshape(-1, weights.shape[-1])).reshape(point.logits.shape)
        old = point.intercepts
        point.weights += weights
        point.logits += logits
        point.drift = point.drift + self.basis.rounding(weights) + self.basis.rounding(point.weights)
        point.intercepts = old + intercepts
        taken, halved = np.ones(len(old)), False
        for halving in range(HALVINGS):
            after = self.evaluate(point, l2_lambda, tolerance)
            worse = after.objective > now.objective * (1 + 1e-12)
            if not worse.any() or halving + 1 == HALVINGS:
                break
            halved = True
            taken_new = np.where(worse, taken / 2, taken)
            back = (taken_new - taken)[:, None]
            point.weights += back[..., None] * weights
            point.logits += back * logits
            point.intercepts = np.where(
                worse[:, None], old + taken_new[:, None] * intercepts, point.intercepts
            )
            taken = taken_new
        return after, halved

    def _sharpened(
        self, point: Point, now: Evaluation, l2_lambda: float, tolerance: float, *, floor: bool = True
    ) -> Evaluation:
        """Form the logits anew from the weights, where what has gathered in them stands before the goal."""
        blurred = now.blur > BLUR * np.maximum(now.goal, 0)
        fresh = self.basis.rounding(point.weights)
        if not (blurred & (point.drift > MEASURED * fresh)).any():
            return now
        flat = self.basis.forward(point.weights.reshape(-1, point.weights.shape[-1]))
        point.logits[...] = flat.reshape(point.logits.shape)
        point.drift = np.minimum(fresh, self.basis.drift(point.weights, point.logits))
        return self.evaluate(point, l2_lambda, tolerance, floor=floor)

    def take(self, problems: Array) -> Solver:
        """Return the solver of some of the problems."""
        return Solver(self.basis, self.loss.take(problems), self.null[problems])
