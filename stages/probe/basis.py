"""The features as the solver reads them: centred, in float64 for the final word, in float32 for the steps.

Centring changes nothing (b is free) and keeps float32 accurate. The leading eigenvectors of X'X, found once,
serve the preconditioners of all lambdas and all folds; they steer steps and never certify, and no direction
is dropped. Weights and gradients have shape (columns, d), so that every product runs along the rows of X.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from stages.probe.losses import row_blocks
from stages.probe.trapezoid import column_panels, lower_trapezoid, row_panels
from stages.probe.twins import Twins, find_twins

Array = NDArray[Any]

STREAM_BYTES = 16 << 20
RANK = 64
"""Eigenvectors that are kept where rows are few: the curvature of a fitted row is small, so that few
directions of X'X rise above lambda."""
SMALL = 320
"""Dimensions up to which all eigenvectors cost next to nothing."""
ALL_DIRECTIONS_ROWS = 2
"""Rows per column from which all eigenvectors are used: such data are often not separable, every direction
rises above a weak lambda, and float32 tells them apart only in coordinates of their own."""
OVERSAMPLING = 8
ROUNDING = float(np.finfo(np.float64).eps)
"""Of ||X|| ||W||, which no product exceeds: rounding of the sums and of X itself where it is turned."""
POWERS = 2


@dataclass(frozen=True)
class Basis:
    """Centred features X of all rows, or of some."""

    features: Array
    """(n, d) as they were given."""
    mean: NDArray[np.float64]
    """(d,) over all rows."""
    exact: NDArray[np.float64] | None
    """(n, d) X; None where it is read from ``features`` block by block."""
    fast: NDArray[np.float32] | None
    """(n, d) X; None where it is read from ``features`` block by block."""
    directions: NDArray[np.float32] | None
    """(d, r) leading eigenvectors of X'X as columns; None where the columns of X are the directions."""
    squares: NDArray[np.float64]
    """(r,) their eigenvalues, largest first."""
    rest: float
    """Mean of the other eigenvalues."""
    total: float
    """||X||_F^2: no eigenvalue is larger."""
    rows: int
    """n; less than the rows of ``features`` in a `subset`."""
    shares: NDArray[np.float64]
    """(n,) of ``total`` that each row has."""
    twins: Twins | None = None
    """Rows that are the same, as images listed twice are; None where no two are."""
    turn: NDArray[np.float64] | None = None
    """(m, d) Q', rows orthonormal, where X Q is held in place of X; then d stands for m elsewhere."""
    reach: NDArray[np.intp] | None = None
    """(n,) columns of the trapezoid that a row reaches, ascending."""
    may_turn: bool = False
    """Whether memory allows for X in other coordinates beside it."""

    @property
    def size(self) -> int:
        """Columns."""
        return len(self.mean) if self.turn is None else len(self.turn)

    def forward(self, weights: Array) -> Array:
        """Return X W': (c, d) weights to (n, c), in the dtype of the weights."""
        out = np.empty((self.rows, len(weights)), weights.dtype)
        for rows, block in self._strips(weights.dtype):
            if weights.dtype == np.float64:
                # BLAS does the narrow product in float64 best with the weights on the left.
                out[rows] = (weights[:, : block.shape[1]] @ block.T).T
            else:
                np.matmul(block, weights[:, : block.shape[1]].T, out=out[rows])
        return out

    def backward(self, residuals: Array) -> Array:
        """Return R'X: (n, c) to (c, d), in the dtype of the residuals."""
        held = self._held(residuals.dtype)
        if held is not None and self.reach is None:
            return np.asarray(residuals.T @ held)
        out = np.zeros((residuals.shape[1], self.size), residuals.dtype)
        if held is not None and self.reach is not None:
            for first, columns in column_panels(self.reach, self.size):
                np.matmul(residuals[first:].T, held[first:, columns], out=out[:, columns])
        else:
            for rows, block in _centred_blocks(self.features, self.mean, residuals.dtype):
                out += residuals[rows].T @ block
        return out

    def rounding(self, weights: Array) -> NDArray[np.float64]:
        """Return how far float64 may miss X W' of (P, K, d) weights, (P,) Frobenius norms."""
        flat = weights.reshape(len(weights), -1)
        return np.asarray(ROUNDING * np.sqrt(self.total) * np.sqrt(np.einsum("pj,pj->p", flat, flat)))

    def drift(self, weights: Array, logits: Array) -> NDArray[np.float64]:
        """Return how far logits (n, P, K) lie from those of (P, K, d) weights, (P,) Frobenius norms.

        Measured on the features as they were given where X is held in other coordinates: the two roundings
        have nothing in common, and most often stay far below what `rounding` allows for.
        """
        P, K, d = weights.shape
        if self.turn is None or self.rows != len(self.features):
            return self.rounding(weights)
        coefficients, square = self.coefficients(weights.reshape(-1, d)), np.zeros(P)
        for rows, block in _centred_blocks(self.features, self.mean, np.float64):
            apart = logits[rows] - (block @ coefficients.T).reshape(-1, P, K)
            square += np.einsum("npk,npk->p", apart, apart)
        return np.asarray(np.sqrt(square))

    def coefficients(self, weights: Array) -> Array:
        """Return (c, d) coefficients of the features for weights (c, m)."""
        return weights if self.turn is None else weights @ self.turn

    def subset(self, chosen: Array) -> Basis | None:
        """Return some of the rows, ascending; None where they are not in memory."""
        if self.exact is None or self.fast is None:
            return None
        share = len(chosen) / self.rows
        return replace(
            self,
            rows=len(chosen),
            shares=self.shares[chosen],
            twins=find_twins(self.shares[chosen]),
            exact=self.exact[chosen],
            fast=self.fast[chosen],
            reach=None if self.reach is None else self.reach[chosen],
            squares=self.squares * share,
            rest=self.rest * share,
        )

    def turned(self) -> tuple[Basis, NDArray[np.float64]] | None:
        """Return X in all its eigenvectors, and these as columns; None where it is so, or memory forbids."""
        return _turned(self) if self.may_turn else None

    def _held(self, dtype: Any) -> Array | None:
        """Return X in memory, if it is."""
        return self.exact if dtype == np.float64 else self.fast

    def _strips(self, dtype: Any) -> Iterator[tuple[slice, Array]]:
        """Yield (rows, X of these rows as far as they reach), from memory or converted on the way."""
        held = self._held(dtype)
        if held is None:
            yield from _centred_blocks(self.features, self.mean, dtype)
        elif self.reach is None:
            yield slice(0, self.rows), held
        else:
            for rows, stop in row_panels(self.reach):
                yield rows, held[rows, :stop]


def make_basis(features: Array, memory: int | None = None, *, turned: bool = False) -> Basis:
    """Centre features that were checked, and find their leading directions.

    Parameters
    ----------
    features
        (n, d) floating, possibly memory-mapped.
    memory
        Bytes that copies of the features may take; beyond it they are read block by block. None: as much
        as the features in float32 take, and 256 MiB at least.
    turned
        Whether to hold a trapezoid where that pays and fits: for many products and few solutions that are
        wanted in coordinates of the features.
    """
    n, d = features.shape
    budget = max(4 * n * d, 256 << 20) if memory is None else memory
    basis = _held_basis(plain_basis(features), budget)
    basis = replace(basis, may_turn=basis.exact is not None and 28 * n * d <= budget)
    if d <= SMALL or n >= ALL_DIRECTIONS_ROWS * d:
        return _eigen_basis(basis)
    if turned and basis.may_turn and basis.exact is not None:
        lower, turn = lower_trapezoid(basis.exact)
        reach = np.minimum(np.arange(1, n + 1), len(turn))
        basis = replace(basis, exact=lower, fast=lower.astype(np.float32), turn=turn, reach=reach)
        if n <= SMALL:
            return _eigen_basis(basis)
    squares, directions = _leading_directions(basis)
    rest = max(basis.total - float(squares.sum()), 0.0) / max(min(n - 1, d) - len(squares), 1)
    return replace(basis, directions=directions, squares=squares, rest=rest)


def _held_basis(plain: Basis, budget: int) -> Basis:
    """Return the basis with what fits of X in memory."""
    n, d = plain.features.shape
    exact = np.empty((n, d)) if 12 * n * d <= budget else None
    fast = np.empty((n, d), np.float32) if 4 * n * d <= budget else None
    if fast is not None:
        for rows, block in _centred_blocks(plain.features, plain.mean, np.float64):
            fast[rows] = block
            if exact is not None:
                exact[rows] = block
    return replace(plain, exact=exact, fast=fast)


def plain_basis(features: Array) -> Basis:
    """Return a basis that measures on the features themselves and knows no directions."""
    n, d = features.shape
    total = np.zeros(d)
    for rows in row_blocks(n, 8 * d, STREAM_BYTES):
        total += features[rows].sum(axis=0, dtype=np.float64)
    mean, norms = total / n, np.empty(n)
    for rows, x in _centred_blocks(features, mean, np.float64):
        norms[rows] = np.einsum("ij,ij->i", x, x)
    norm = float(norms.sum())
    shares = norms / norm if norm else norms
    none = np.zeros((d, 0), np.float32)
    return Basis(features, mean, None, None, none, np.zeros(0), norm / d, norm, n, shares, find_twins(shares))


def _centred_blocks(features: Array, mean: Array, dtype: Any) -> Iterator[tuple[slice, Array]]:
    """Yield (rows, features - mean) in the dtype asked for, a bounded number of rows at a time."""
    for rows in row_blocks(len(features), 8 * features.shape[1], STREAM_BYTES):
        block = features[rows].astype(np.float64)
        block -= mean
        yield rows, block.astype(dtype, copy=False)


def _eigen_basis(basis: Basis) -> Basis:
    """Return the basis with all eigenvectors: X is turned into them where it is held."""
    if basis.exact is None:
        gram = np.zeros((basis.size, basis.size))
        for _, block in basis._strips(np.float64):
            gram += block.T @ block
        squares, turn = _eigen(gram)
        return replace(basis, directions=turn.astype(np.float32), squares=squares)
    return _turned(basis)[0]


def _turned(basis: Basis) -> tuple[Basis, NDArray[np.float64]]:
    """Return the basis in the eigenvectors of X'X, and these as columns."""
    assert basis.exact is not None
    _, columns = _eigen(basis.exact.T @ basis.exact)
    exact = basis.exact @ columns
    # The small eigenvalues of X'X are lost beside the large ones; the lengths of the columns are not.
    squares = np.einsum("ij,ij->j", exact, exact)
    turn = columns.T if basis.turn is None else columns.T @ basis.turn
    found = replace(basis, exact=exact, fast=exact.astype(np.float32), turn=turn, reach=None, may_turn=False)
    return replace(found, directions=None, squares=squares), columns


def _leading_directions(basis: Basis) -> tuple[Array, Array]:
    """Return the leading eigenvalues and eigenvectors of X'X by subspace iteration from a fixed start."""
    wanted = min(RANK, basis.rows)
    start = np.random.Generator(np.random.PCG64(0)).standard_normal(
        (basis.rows, min(wanted + OVERSAMPLING, basis.rows)), np.float32
    )
    span = _orthonormal(basis.backward(start))
    for _ in range(POWERS):
        span = _orthonormal(basis.backward(basis.forward(span)))
    seen = basis.forward(span).astype(np.float64)
    squares, turn = _eigen(seen.T @ seen)
    return squares[:wanted], (span.T @ turn[:, :wanted]).astype(np.float32)


def _orthonormal(rows: Array) -> Array:
    """Return an orthonormal basis of what the rows span, as rows."""
    return np.ascontiguousarray(np.linalg.qr(rows.T)[0].T)


def _eigen(gram: Array) -> tuple[Array, Array]:
    """Return eigenvalues (not below zero) and eigenvectors as columns, strongest first."""
    squares, turn = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return np.maximum(squares[::-1], 0), np.ascontiguousarray(turn[:, ::-1])
