"""Linear systems with the Hessian: conjugate gradients for the weights, a dense solve for the intercepts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.basis import Basis
from stages.probe.losses import Curvature, Loss

Array = NDArray[Any]

MAX_PRODUCTS = 400


@dataclass(frozen=True)
class System:
    """The Hessian at a point, as products in eigen coordinates."""

    basis: Basis
    loss: Loss
    curvature: Curvature
    l2_lambda: Any
    n_classes: int

    def take(self, problems: Array) -> System:
        """Return the system of some of the problems."""
        curvature = self.curvature.take(problems)
        return replace(self, loss=self.loss.take(problems), curvature=curvature)

    def product(self, s: Array, sb: Array) -> tuple[Array, Array]:
        """Return H (s, sb) for (m, P K) and (P K,)."""
        change = self.basis.eigen_forward(s)
        change += sb
        shaped = change.reshape(len(change), -1, self.n_classes)
        self.loss.product(self.curvature, shaped)
        out = self.basis.eigen_backward(change)
        out += self.l2_lambda * s
        return out, change.sum(axis=0)


def conjugate_gradients(
    system: System, r: Array, rb: Array, inverse: Array, inverse_b: Array, until: Array
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


def solve_intercepts(hessian: Array, slope: Array) -> Array:
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
