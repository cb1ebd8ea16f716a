"""Coordinates in which the probe is solved: exact ones for the final word, whitened ones for the steps.

Centring the features changes nothing (b is free). Two linear maps of the centred features X serve all
lambdas and all folds:

* exact, float64: X itself where n >= d; where n < d the factor L of X = L Q' (Householder QR), which holds
  the problem in n dimensions and, being triangular, costs half of its products. No direction is dropped.
* eigen, float32: Phi = X U with U the eigenvectors of X'X (or L'L), in which the Hessian is nearly
  diagonal. It steers steps and never certifies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from stages.probe.losses import row_blocks

Array = NDArray[Any]

TRIANGLE_BLOCKS = 8
STREAM_BYTES = 64 << 20


@dataclass(frozen=True)
class Basis:
    """Features of all rows, decomposed once."""

    features: Array
    """(n, d) as they were given."""
    mean: NDArray[np.float64]
    """(d,) over all rows."""
    exact: NDArray[np.float64] | None
    """(n, m) exact coordinates; None where they are read from ``features`` block by block."""
    reach: NDArray[np.intp] | None
    """(n,) where ``exact`` is triangular: columns that a row reaches, ascending; None where it is full."""
    directions: NDArray[np.float64] | None
    """(d, m) Q, orthonormal columns; None where the exact coordinates are the features themselves."""
    rotation: NDArray[np.float32]
    """(m, m) U: eigenvectors as columns, in exact coordinates."""
    squares: NDArray[np.float64]
    """(m,) eigenvalues of X'X, never negative."""
    eigen: NDArray[np.float32] | None
    """(n, m) Phi; None where it is formed block by block."""

    rows: int
    """n; less than the rows of ``features`` in a `subset`."""

    @property
    def size(self) -> int:
        """Dimensions the solver works in: min(n, d)."""
        return len(self.squares)

    def forward(self, weights: Array) -> Array:
        """Return X W in float64: (m, c) exact coordinates to (n, c)."""
        out = np.empty((self.rows, weights.shape[1]))
        if self.exact is not None:
            for rows, stop in self._steps():
                np.matmul(self.exact[rows, :stop], weights[:stop], out=out[rows])
        else:
            for rows, block in self._blocks(np.float64):
                np.matmul(block, weights, out=out[rows])
        return out

    def backward(self, residuals: Array) -> Array:
        """Return X'R in float64: (n, c) to (m, c) exact coordinates."""
        # R'X is the product that BLAS does best with rows of X contiguous.
        out = np.zeros((residuals.shape[1], self.size))
        if self.exact is not None:
            for rows, start, stop in self._steps_back():
                np.matmul(residuals[rows].T, self.exact[rows, start:stop], out=out[:, start:stop])
        else:
            for rows, block in self._blocks(np.float64):
                out += residuals[rows].T @ block
        return np.ascontiguousarray(out.T)

    def eigen_forward(self, weights: Array) -> Array:
        """Return Phi W: (m, c) eigen coordinates to (n, c), in the dtype of the weights."""
        if self.eigen is not None and weights.dtype == np.float32:
            return self.eigen @ weights
        if weights.dtype == np.float64:
            return self.forward(self.from_eigen(weights))
        turned, out = self.rotation @ weights, np.empty((self.rows, weights.shape[1]), np.float32)
        for rows, block in self._blocks(np.float32):
            np.matmul(block, turned, out=out[rows])
        return out

    def eigen_backward(self, residuals: Array) -> Array:
        """Return Phi'R: (n, c) to (m, c) eigen coordinates, in the dtype of the residuals."""
        if self.eigen is not None and residuals.dtype == np.float32:
            return np.ascontiguousarray((residuals.T @ self.eigen).T)
        if residuals.dtype == np.float64:
            return self.to_eigen(self.backward(residuals))
        out = np.zeros((self.size, residuals.shape[1]), np.float32)
        for rows, block in self._blocks(np.float32):
            out += block.T @ residuals[rows]
        return self.rotation.T @ out

    def to_eigen(self, weights: Array) -> Array:
        """Turn (m, c) from exact to eigen coordinates, in the dtype of the weights."""
        return self.rotation.T.astype(weights.dtype, copy=False) @ weights

    def from_eigen(self, weights: Array) -> Array:
        """Turn (m, c) from eigen to exact coordinates, in the dtype of the weights."""
        return self.rotation.astype(weights.dtype, copy=False) @ weights

    def coefficients(self, weights: Array) -> Array:
        """Return (c, d) coefficients of the features for (m, c) exact coordinates."""
        return np.ascontiguousarray((weights if self.directions is None else self.directions @ weights).T)

    def subset(self, chosen: Array) -> Basis | None:
        """Return the same coordinates over some of the rows, ascending; None where they are not in memory."""
        if self.exact is None or self.eigen is None:
            return None
        reach = None if self.reach is None else self.reach[chosen]
        return replace(
            self, rows=len(chosen), exact=self.exact[chosen], reach=reach, eigen=self.eigen[chosen]
        )

    def _steps(self) -> list[tuple[slice, int]]:
        """Return blocks of rows and the columns they reach."""
        if self.reach is None:
            return [(slice(0, self.rows), self.size)]
        step = -(-self.rows // TRIANGLE_BLOCKS)
        starts = range(0, self.rows, step)
        return [
            (slice(i, min(i + step, self.rows)), int(self.reach[min(i + step, self.rows) - 1]))
            for i in starts
        ]

    def _steps_back(self) -> list[tuple[slice, int, int]]:
        """Return blocks of columns and the rows that reach them."""
        if self.reach is None:
            return [(slice(0, self.rows), 0, self.size)]
        step = -(-self.size // TRIANGLE_BLOCKS)
        return [
            (slice(int(np.searchsorted(self.reach, i + 1)), self.rows), i, min(i + step, self.size))
            for i in range(0, self.size, step)
        ]

    def _blocks(self, dtype: type) -> Iterator[tuple[slice, Array]]:
        """Yield blocks of centred features, converted on the way."""
        yield from centred_blocks(self.features, self.mean, dtype)


def centred_blocks(features: Array, mean: Array, dtype: type) -> Iterator[tuple[slice, Array]]:
    """Yield (rows, features - mean) in the dtype asked for, a bounded number of rows at a time."""
    for rows in row_blocks(len(features), 8 * features.shape[1], STREAM_BYTES):
        block = features[rows].astype(np.float64)
        block -= mean
        yield rows, block.astype(dtype, copy=False)


def make_basis(features: Array, memory: int | None = None) -> Basis:
    """Decompose features that were checked.

    Parameters
    ----------
    features
        (n, d) floating, possibly memory-mapped.
    memory
        Bytes that copies of the features may take; beyond it they are read block by block. None: as much
        as the features in float32 take, and 256 MiB at least.
    """
    n, d = features.shape
    mean = _mean(features)
    budget = max(4 * n * d, 256 << 20) if memory is None else memory
    if n < d:
        return _wide_basis(features, mean)
    exact = np.empty((n, d)) if 12 * n * d <= budget else None
    gram = np.zeros((d, d))
    for rows, block in centred_blocks(features, mean, np.float64):
        gram += block.T @ block
        if exact is not None:
            exact[rows] = block
    squares, rotation = _eigen(gram)
    eigen = np.empty((n, d), np.float32) if 4 * n * d <= budget else None
    if eigen is not None:
        turn = rotation.astype(np.float32) if exact is None else rotation
        for rows, block in centred_blocks(features, mean, turn.dtype.type):
            eigen[rows] = block @ turn
    return Basis(features, mean, exact, None, None, rotation.astype(np.float32), squares, eigen, n)


def plain_basis(features: Array) -> Basis:
    """Return a basis that measures on the features themselves and is no good for steps."""
    mean = _mean(features)
    square = sum(float(np.vdot(block, block)) for _, block in centred_blocks(features, mean, np.float64))
    nothing = np.zeros((0, 0), np.float32)
    return Basis(
        features, mean, None, None, None, nothing, np.full(features.shape[1], square), None, len(features)
    )


def _mean(features: Array) -> NDArray[np.float64]:
    """Return the mean row, (d,)."""
    total = np.zeros(features.shape[1])
    for rows in row_blocks(len(features), 8 * features.shape[1], STREAM_BYTES):
        total += features[rows].sum(axis=0, dtype=np.float64)
    return total / len(features)


def _wide_basis(features: Array, mean: Array) -> Basis:
    """Return the basis of fewer rows than columns, in as many dimensions as rows."""
    centred = features.astype(np.float64) - mean
    factors: tuple[Array, Array] = scipy.linalg.qr(
        centred.T, mode="economic", overwrite_a=True, check_finite=False
    )
    directions, exact = factors[0], np.ascontiguousarray(factors[1].T)
    squares, rotation = _eigen(exact.T @ exact)
    eigen = (exact @ rotation).astype(np.float32)
    n = len(features)
    reach = np.arange(1, n + 1)
    return Basis(features, mean, exact, reach, directions, rotation.astype(np.float32), squares, eigen, n)


def _eigen(gram: Array) -> tuple[Array, Array]:
    """Return eigenvalues (not below zero) and eigenvectors, strongest first."""
    squares, rotation = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return np.maximum(squares[::-1], 0), np.ascontiguousarray(rotation[:, ::-1])
