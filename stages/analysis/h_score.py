"""H-scores: how much of the features' variance, whitened, lies between the class means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.checks import check_single_label
from stages.analysis.reduction import Reduced, one_hot, reduce
from stages.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class HScores:
    """Both H-scores of one set of features."""

    plain: float | None
    """tr(cov(f)^+ cov(E[f | y])); None where it says nothing, see ``reason``."""
    reason: str
    """Why there is no plain score; empty where there is one."""
    shrunk: float
    """tr(cov_a(f)^-1 (1 - a) cov(E[f | y])) at Ledoit and Wolf's a."""
    shrinkage: float
    """That a, in [0, 1]."""
    classes: int
    """With rows: the plain score is at most classes - 1."""


def h_scores(features: Array, labels: Array, n_classes: int) -> HScores:
    """Return the H-score and its shrinkage form.

    Parameters
    ----------
    features
        (n, d); centred here.
    labels
        (n,) integers.
    n_classes
        K.

    Returns
    -------
    HScores

    Raises
    ------
    InputError
        Multi-label data, which have no class means, or features that do not vary.

    Notes
    -----
    Plain: Bao et al. 2019, "An information-theoretic approach to transferability in task transfer learning",
    definition 2. Shrinkage: Ibrahim, Ponomareva and Mazumder 2021, "Newer is not always better", with the
    covariance (1 - a) S + a tr(S)/d I and the class means' covariance times (1 - a), a after Ledoit and Wolf
    2004, "A well-conditioned estimator for large-dimensional covariance matrices". All covariances
    divide by n; published code that divides only the class means' by n - 1 gives n / (n - 1) times that.

    For n <= d the whitened classes can always be told apart and the plain score is K - 1 for whatever
    features: it is not given there (protocol, "Other experiments"). The plain score does not change
    under any invertible linear map of the features, the shrinkage one under rotations and one common scale.

    Examples
    --------
    >>> labels = np.arange(40) % 2
    >>> rows = np.stack([labels, np.linspace(-1, 1, 40)], axis=1)
    >>> h_scores(rows, labels, 2).plain > 0.999
    True
    """
    check_single_label(labels, "the H-score")
    counts = np.bincount(labels, minlength=n_classes)
    reduced = reduce(features, one_hot(labels, n_classes))
    if not len(reduced.singular_values):
        raise InputError("all rows have the same features: an H-score needs features that vary")
    n, d = reduced.n, features.shape[1]
    spectrum = np.square(reduced.singular_values) / n
    # (r,) variance of the class means along each direction: row k of the targets sums the rows of class k.
    between = spectrum * (np.square(reduced.projections[:, counts > 0]) / counts[counts > 0]).sum(axis=1)
    shrinkage = ledoit_wolf(reduced, d)
    target = float(spectrum.sum()) / d
    shrunk = ((1 - shrinkage) * between / ((1 - shrinkage) * spectrum + shrinkage * target)).sum()
    reason = ""
    if n <= d or len(spectrum) >= n - 1:
        reason = (
            f"{n} rows of {d} dimensions: the plain H-score is K - 1 for any features, use the shrinkage one"
        )
    plain = None if reason else float((between / spectrum).sum())
    return HScores(plain, reason, float(shrunk), shrinkage, int((counts > 0).sum()))


def ledoit_wolf(reduced: Reduced, d: int) -> float:
    """Return Ledoit and Wolf's shrinkage of a covariance, in [0, 1].

    Parameters
    ----------
    reduced
        Of centred features.
    d
        Their dimension.

    Notes
    -----
    Ledoit and Wolf 2004, section 3.2, with the sum over rows of ||x x' - S||^2 written as the sum of ||x||^4
    minus n ||S||^2, so that nothing of size n times d^2 is formed.
    """
    n, spectrum = reduced.n, np.square(reduced.singular_values) / reduced.n
    squared = float(np.square(spectrum).sum())
    distance = squared - float(spectrum.sum()) ** 2 / d
    spread = (reduced.fourth_moment / n - squared) / n
    if distance <= 0:
        return 1.0
    return min(max(spread, 0.0), distance) / distance
