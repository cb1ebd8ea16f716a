"""Linear systems with the Hessian: conjugate gradients for the weights, a dense inverse for the intercepts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.basis import Basis
from stages.probe.losses import Curvature, Loss
from stages.probe.preconditioner import Preconditioner

Array = NDArray[Any]

MAX_PRODUCTS = 400
DEAD = 1e-30
"""Curvature of an intercept that counts as none: its inverse would not fit into float32."""


@dataclass(frozen=True)
class System:
    """The Hessian by the weights with the intercepts eliminated, as products, and an approximate inverse."""

    basis: Basis
    loss: Loss
    curvature: Curvature
    l2_lambda: Any
    intercepts: Array
    """(P, K, K) inverse of the Hessian by the intercepts."""
    inverse: Preconditioner

    def take(self, problems: Array) -> System:
        """Return the system of some of the problems."""
        return replace(
            self,
            loss=self.loss.take(problems),
            curvature=self.curvature.take(problems),
            intercepts=self.intercepts[problems],
            inverse=self.inverse.take(problems),
        )

    def product(self, s: Array) -> tuple[Array, Array]:
        """Return H s of (P, K, d), and the change of b (P, K) that keeps its gradient at zero."""
        P, K, d = s.shape
        change = self.basis.forward(s.reshape(-1, d)).reshape(-1, P, K)
        self.loss.product(self.curvature, change)
        sb = -(self.intercepts @ change.sum(axis=0)[..., None])[..., 0]
        answer = np.broadcast_to(sb, change.shape).copy()
        self.loss.product(self.curvature, answer)
        change += answer
        out = self.basis.backward(change.reshape(len(change), -1)).reshape(s.shape)
        out += self.l2_lambda * s
        return out, sb


def dots(a: Array, b: Array) -> Array:
    """Return the inner product of each problem, (P,), of arrays whose first axis is the problem."""
    return np.array([np.vdot(x, y) for x, y in zip(a, b, strict=True)])


def conjugate_gradients(system: System, r: Array, until: Array) -> tuple[Array, Array, int]:
    """Solve H x = r of (P, K, d); a problem leaves when its ||r||^2 is below ``until``.

    Returns x, the change of the intercepts that goes with it, and the products it took.
    """
    solution, solution_b = np.zeros_like(r), np.zeros(r.shape[:2], r.dtype)
    x, xb, problems = solution.copy(), solution_b.copy(), np.arange(len(r))
    p = system.inverse.apply(r)
    energy = dots(r, p)
    products = 0
    while products < MAX_PRODUCTS:
        q, pb = system.product(p)
        products += 1
        curved = dots(p, q)
        length = np.where(curved > 0, energy / np.where(curved > 0, curved, 1), 0).astype(r.dtype)[:, None]
        x += p * length[..., None]
        xb += pb * length
        q *= length[..., None]
        r -= q
        running = (dots(r, r) > until) & (curved > 0)
        if not running.all():
            solution[problems], solution_b[problems] = x, xb
            if not running.any():
                break
            kept = np.flatnonzero(running)
            system = system.take(kept)
            until, energy, problems, x, xb, r, p = (v[kept] for v in (until, energy, problems, x, xb, r, p))
        z = system.inverse.apply(r)
        fresh = dots(r, z)
        p *= (fresh / np.where(energy > 0, energy, 1)).astype(r.dtype)[:, None, None]
        p += z
        energy = fresh
    else:
        solution[problems], solution_b[problems] = x, xb
    return solution, solution_b, products


def energies(system: System, r: Array, share: float) -> Array:
    """Return r' H^-1 r / 2 of each problem, (P,), from below.

    The conjugate gradients that solve H x = r gain this energy step by step (Hestenes and Stiefel, 1952);
    a problem leaves when its last two steps gained no more than ``share`` of what it has, and when no more
    than ``share`` of ||r||^2 is left: of badly scaled features either alone ends too early.
    """
    total, gains = np.zeros(len(r)), np.full((2, len(r)), np.inf)
    problems, until = np.arange(len(r)), share * dots(r, r)
    r = r.copy()
    p = system.inverse.apply(r)
    energy = dots(r, p)
    for _ in range(MAX_PRODUCTS):
        q, _ = system.product(p)
        curved = dots(p, q)
        length = np.where(curved > 0, energy / np.where(curved > 0, curved, 1), 0)
        gains = np.stack([gains[1], length * energy / 2])
        total[problems] += gains[1]
        q *= length.astype(r.dtype)[:, None, None]
        r -= q
        gaining = gains.sum(axis=0) > share * total[problems]
        running = (gaining | (dots(r, r) > until[problems])) & (curved > 0)
        if not running.any():
            break
        if not running.all():
            kept = np.flatnonzero(running)
            system = system.take(kept)
            gains, energy, problems, r, p = gains[:, kept], energy[kept], problems[kept], r[kept], p[kept]
        z = system.inverse.apply(r)
        fresh = dots(r, z)
        p *= (fresh / np.where(energy > 0, energy, 1)).astype(r.dtype)[:, None, None]
        p += z
        energy = fresh
    return total


def invert_intercepts(hessian: Array) -> tuple[Array, bool]:
    """Return H^-1 of (P, K, K): scaled to a unit diagonal, with the direction of ones made regular.

    Where a whole group of classes has no row in doubt between it and the others, there is no curvature that
    way: the inverse is then a pseudo-inverse, and the flag is true.
    """
    diagonal = np.einsum("pkk->pk", hessian)
    alive = diagonal > DEAD
    root = np.sqrt(np.where(alive, diagonal, 1))
    K = hessian.shape[1]
    scale = np.where(alive, 1 / root, 0)
    scaled = hessian / (root[:, :, None] * root[:, None, :])
    index = np.arange(K)
    scaled[:, index, index] = 1
    if K > 1:
        ones = np.where(alive, root, 0)
        ones /= np.maximum(np.linalg.norm(ones, axis=1, keepdims=True), 1e-300)
        scaled += ones[:, :, None] * ones[:, None, :]
    try:
        inverse, singular = np.linalg.inv(scaled), False
    except np.linalg.LinAlgError:
        inverse, singular = np.linalg.pinv(scaled, hermitian=True), True
    return np.asarray(inverse * (scale[:, :, None] * scale[:, None, :])), singular
