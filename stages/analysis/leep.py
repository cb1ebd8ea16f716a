"""LEEP: how well the source classes that a network assigns predict the target's labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.checks import check_single_label
from stages.errors import InputError

Array = NDArray[Any]

SUMS_TO_ONE = 1e-3
"""float16 probabilities of a thousand classes add up to 1 within this."""


def leep(probabilities: Array, labels: Array) -> float:
    """Return the log expected empirical prediction.

    Parameters
    ----------
    probabilities
        (n, Z) of the source classes, as the source network's own head gives them.
    labels
        (n,) integers of the target.

    Returns
    -------
    float
        Nats, at most 0: the mean over rows of ln sum_z P(y | z) theta_z, with P(y, z) the mean over rows of
        class y of theta_z (divided by n), P(y | z) = P(y, z) / P(z).

    Raises
    ------
    InputError
        Multi-label data, shapes that do not fit, or rows that are no probabilities.

    Notes
    -----
    Nguyen et al. 2020, "LEEP: a new measure to evaluate transferability of learned representations",
    equations 1 and 2. It sees the head of the source network, not its penultimate features.

    Examples
    --------
    >>> leep(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    0.0
    """
    check_single_label(labels, "LEEP")
    theta = np.asarray(probabilities, dtype=np.float64)
    if theta.ndim != 2 or len(theta) != len(labels) or not len(labels):
        raise InputError(
            f"probabilities {theta.shape} and labels {labels.shape} do not fit: give (n, Z) and (n,)"
        )
    if not (theta >= 0).all() or np.abs(theta.sum(axis=1) - 1).max() > SUMS_TO_ONE:
        raise InputError("LEEP needs rows of probabilities that sum to 1: these look like logits")
    present, y = np.unique(labels, return_inverse=True)
    joint = np.zeros((len(present), theta.shape[1]))
    np.add.at(joint, y, theta)
    seen = joint.sum(axis=0) > 0
    given = joint[:, seen] / joint[:, seen].sum(axis=0)
    return float(np.log(np.einsum("iz,iz->i", given[y], theta[:, seen])).mean())
