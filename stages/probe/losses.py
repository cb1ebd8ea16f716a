"""The two losses, evaluated on logits: several problems over the same rows side by side.

Arrays of logits have shape (n, P, K): row, problem, class. Problems differ in the rows they see (folds) or
in their labels (one sigmoid a label, K = 1). Everything is written relative to the true class, because
``log(sum) - z_y`` and ``p_y - 1`` cancel where a row is fitted well (protocol, "The certificate").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from stages.probe.targets import Targets

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20
SAFE_EXPONENT = {4: 60.0, 8: 500.0}
"""Largest exponent whose sum over classes cannot overflow, by bytes of the dtype."""


def row_blocks(n: int, bytes_a_row: int, budget: int = BLOCK_BYTES) -> Iterator[slice]:
    """Yield slices of rows whose data stay in cache."""
    step = max(16, budget // max(bytes_a_row, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


@dataclass(frozen=True)
class Curvature:
    """What a product with the Hessian needs of the current probabilities, float32 or float64."""

    weights: Array
    """(n, P, K): softmax: probabilities of the other classes, 0 at the true one; sigmoid: p (1 - p)."""
    p_true: Array
    """(n, P) probability of the true class, 0 on rows that a problem does not see; unused by sigmoids."""

    def take(self, problems: Array) -> Curvature:
        """Return the curvature of some of the problems."""
        return Curvature(
            np.ascontiguousarray(self.weights[:, problems]), np.ascontiguousarray(self.p_true[:, problems])
        )


class Loss(Protocol):
    """P convex losses over the same n rows."""

    @property
    def seen(self) -> Array:
        """Return (n, P): 1 where a problem is fitted to the row (or pair), else 0."""
        ...

    def take(self, problems: Array) -> Loss:
        """Return some of the problems."""
        ...

    def residuals(self, logits: Array, intercepts: Array, out: Array) -> tuple[Array, Array]:
        """Write dloss/dlogits to ``out`` (n, P, K); return the loss (P,) and the gradient by b (P, K)."""
        ...

    def curvature(self, residuals: Array, dtype: type) -> Curvature:
        """Return what `product` needs, at the logits that gave these residuals."""
        ...

    def intercept_hessian(self, residuals: Array) -> Array:
        """Return the Hessian by b, (P, K, K)."""
        ...

    def product(self, curvature: Curvature, direction: Array) -> None:
        """Overwrite (n, P, K) changes of the logits by the changes of the residuals."""
        ...

    def null(self) -> tuple[Array, Array]:
        """Return the optimum without weights: loss (P,) and intercepts (P, K)."""
        ...


@dataclass(frozen=True)
class SoftmaxLoss:
    """Multinomial cross-entropy of K classes."""

    labels: NDArray[np.intp]
    """(n,) true class."""
    seen: Array
    """(n, P) float64: 1 where a problem is fitted to the row, else 0."""
    n_classes: int

    def take(self, problems: Array) -> SoftmaxLoss:
        """Return some of the problems."""
        return replace(self, seen=np.ascontiguousarray(self.seen[:, problems]))

    def residuals(self, logits: Array, intercepts: Array, out: Array) -> tuple[Array, Array]:
        """See `Loss`."""
        loss, gradient = np.zeros(logits.shape[1]), np.zeros(logits.shape[1:])
        for rows in row_blocks(len(logits), logits[0].nbytes):
            block, y = out[rows], self.labels[rows]
            np.add(logits[rows], intercepts, out=block)
            losses, tail = _relative_softmax(block, y, self.seen[rows])
            block[np.arange(len(y)), :, y] = -tail
            loss += losses.sum(axis=0)
            gradient += block.sum(axis=0)
        return loss, gradient

    def curvature(self, residuals: Array, dtype: type) -> Curvature:
        """See `Loss`."""
        weights: Array = residuals.astype(dtype)
        rows = np.arange(len(residuals))
        p_true = self.seen + residuals[rows, :, self.labels]
        weights[rows, :, self.labels] = 0
        return Curvature(weights, p_true.astype(dtype))

    def intercept_hessian(self, residuals: Array) -> Array:
        """See `Loss`."""
        P, K = residuals.shape[1:]
        total = np.zeros((P, K, K))
        for rows in row_blocks(len(residuals), residuals[0].nbytes):
            p, y = residuals[rows].copy(), self.labels[rows]
            p[np.arange(len(y)), :, y] += self.seen[rows]
            total -= np.matmul(p.transpose(1, 2, 0), p.transpose(1, 0, 2))
        diagonal = np.arange(K)
        total[:, diagonal, diagonal] = 0
        total[:, diagonal, diagonal] = -total.sum(axis=2)
        return total

    def product(self, curvature: Curvature, direction: Array) -> None:
        """See `Loss`: diag(p) v - p p'v, with v relative to the true class."""
        for rows in row_blocks(len(direction), direction[0].nbytes):
            v, p, y = direction[rows], curvature.weights[rows], self.labels[rows]
            index = np.arange(len(y))
            v -= v[index, :, y][..., None]
            mean = np.einsum("npk,npk->np", p, v)
            v -= mean[..., None]
            v *= p
            v[index, :, y] = -curvature.p_true[rows] * mean

    def null(self) -> tuple[Array, Array]:
        """See `Loss`."""
        counts = np.stack(
            [np.bincount(self.labels, weights=w, minlength=self.n_classes) for w in self.seen.T]
        )
        with np.errstate(divide="ignore"):
            shares = np.log(counts / counts.sum(axis=1, keepdims=True))
        present = counts > 0
        loss = -np.where(present, counts * np.where(present, shares, 0), 0).sum(axis=1)
        return loss, np.where(present, shares, ABSENT)


ABSENT = -1e30
"""Intercept that stands for -infinity inside the solver: it adds, subtracts and extrapolates exactly."""


def _relative_softmax(z: Array, labels: Array, seen: Array) -> tuple[Array, Array]:
    """Turn logits (n, P, K) into probabilities of the other classes; return losses and their sums, (n, P)."""
    index = np.arange(len(labels))
    z -= z[index, :, labels][..., None]
    if z.max() < SAFE_EXPONENT[z.itemsize]:
        shift, true = 0.0, 1.0
    else:
        top = z.max(axis=2)
        z -= top[..., None]
        shift, true = top, np.exp(-top)
    np.exp(z, out=z)
    z[index, :, labels] = 0
    others = z.sum(axis=2)
    total = true + others
    losses = np.where(np.equal(shift, 0), np.log1p(others), shift + np.log(total))
    share = (seen / total).astype(z.dtype, copy=False)
    z *= share[..., None]
    return losses * seen, others * share


@dataclass(frozen=True)
class SigmoidLoss:
    """Logistic losses, one a problem (K = 1)."""

    labels: Array
    """(n, P) of 1 and 0."""
    seen: Array
    """(n, P) float64: 1 where a problem is fitted to the pair, else 0."""

    def take(self, problems: Array) -> SigmoidLoss:
        """Return some of the problems."""
        return SigmoidLoss(
            np.ascontiguousarray(self.labels[:, problems]), np.ascontiguousarray(self.seen[:, problems])
        )

    def residuals(self, logits: Array, intercepts: Array, out: Array) -> tuple[Array, Array]:
        """See `Loss`."""
        sign = np.where(self.labels == 1, 1.0, -1.0)
        margin = (logits[:, :, 0] + intercepts[:, 0]) * sign
        out[:, :, 0] = -sign * expit(-margin) * self.seen
        return -(log_expit(margin) * self.seen).sum(axis=0), out.sum(axis=0)

    def curvature(self, residuals: Array, dtype: type) -> Curvature:
        """See `Loss`."""
        tail = np.abs(residuals)
        return Curvature((tail * (1 - tail)).astype(dtype), self.seen.astype(dtype))

    def intercept_hessian(self, residuals: Array) -> Array:
        """See `Loss`."""
        tail = np.abs(residuals)
        return np.asarray((tail * (1 - tail)).sum(axis=0)[:, :, None])

    def product(self, curvature: Curvature, direction: Array) -> None:
        """See `Loss`."""
        direction *= curvature.weights

    def null(self) -> tuple[Array, Array]:
        """See `Loss`."""
        positive = (self.seen * (self.labels == 1)).sum(axis=0)
        negative = self.seen.sum(axis=0) - positive
        total = np.maximum(positive + negative, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logit = np.log(positive) - np.log(negative)
            loss = -positive * np.log(positive / total) - negative * np.log(negative / total)
        both = (positive > 0) & (negative > 0)
        limit = np.where(positive > 0, -ABSENT, ABSENT)
        return np.where(both, loss, 0.0), np.where(both, logit, limit)[:, None]


def make_loss(targets: Targets, seen: Array) -> Loss:
    """Return the loss of F subsets of the rows, (n, F) of 1 and 0.

    Sigmoids are a problem each: number subset * labels + label.
    """
    if targets.loss == "softmax":
        return SoftmaxLoss(targets.labels, np.ascontiguousarray(seen, dtype=np.float64), len(targets.present))
    subsets = seen.shape[1]
    labels = np.tile(targets.labels, (1, subsets))
    mask = np.repeat(seen, targets.labels.shape[1], axis=1).astype(np.float64)
    return SigmoidLoss((labels == 1).astype(np.int8), mask * (labels >= 0))
