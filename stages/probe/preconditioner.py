"""An approximate inverse of the Hessian: mean curvature of the classes times the spectrum of the features.

With every row's curvature replaced by the mean C over the rows (the Hessian by the intercepts, / n), the
Hessian becomes C (x) X'X + lambda. In the eigenvectors of C and of X'X that is diagonal, c_k s_j^2 + lambda;
directions beyond the leading ones share one eigenvalue, so that they need no coordinates of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.probe.basis import Basis

Array = NDArray[Any]

ROTATED_CLASSES = 256
"""Above this many classes their rotation would cost as much as a product with the features."""


@dataclass(frozen=True)
class Preconditioner:
    """M^-1 of several problems side by side."""

    directions: Array | None
    """(d, r) of the features; None: their columns."""
    classes: Array | None
    """(P, K, K) eigenvectors of C as columns; None: C counts as diagonal."""
    elsewhere: Array
    """(P, K, 1) inverse eigenvalue outside the directions."""
    along: Array
    """(P, K, r) inverse eigenvalues along the directions, less ``elsewhere`` unless these are all."""

    def apply(self, r: Array) -> Array:
        """Return M^-1 r of (P, K, d)."""
        turned = r if self.classes is None else self.classes.transpose(0, 2, 1) @ r
        P, K, d = r.shape
        if self.directions is None:
            out = turned * self.along
        else:
            led = (turned.reshape(-1, d) @ self.directions).reshape(P, K, -1)
            led *= self.along
            out = (led.reshape(P * K, -1) @ self.directions.T).reshape(r.shape)
            out += turned * self.elsewhere
        return out if self.classes is None else self.classes @ out

    def take(self, problems: Array) -> Preconditioner:
        """Return some of the problems."""
        return Preconditioner(
            self.directions,
            None if self.classes is None else self.classes[problems],
            self.elsewhere[problems],
            self.along[problems],
        )


def make_preconditioner(basis: Basis, hessian: Array, l2_lambda: float, dtype: type) -> Preconditioner:
    """Return M^-1 at a point.

    Parameters
    ----------
    basis
        The features' spectrum.
    hessian
        (P, K, K) by the intercepts.
    l2_lambda
        Of the objective.
    dtype
        Of the vectors it is to be applied to.
    """
    K = hessian.shape[1]
    classes: Array | None = None
    curvature = np.einsum("pkk->pk", hessian)
    if 1 < K <= ROTATED_CLASSES:
        curvature, classes = np.linalg.eigh(hessian)
        classes = classes.astype(dtype)
    mean = np.maximum(curvature, 0)[..., None] / basis.rows
    elsewhere = 1 / (mean * basis.rest + l2_lambda)
    along = 1 / (mean * basis.squares + l2_lambda)
    directions = basis.directions
    if directions is not None:
        along -= elsewhere
        directions = directions.astype(dtype, copy=False)
    return Preconditioner(directions, classes, elsewhere.astype(dtype), along.astype(dtype))
