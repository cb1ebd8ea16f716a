"""From weights to logits and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from stages.probe.losses import row_blocks

Array = NDArray[Any]


def logits_of(
    features: Array, coefficients: Array, intercepts: Array, multi_label: bool
) -> NDArray[np.float64]:
    """Return (n, K) logits; the single sigmoid of two classes becomes the columns (0, z).

    Parameters
    ----------
    features
        (n, d).
    coefficients, intercepts
        (K, d) and (K,), or (1, d) and (1,) for two classes.
    multi_label
        Whether every output is a label of its own.
    """
    z = np.empty((len(features), len(intercepts)))
    for rows in row_blocks(len(features), 8 * features.shape[1]):
        z[rows] = features[rows].astype(np.float64) @ coefficients.T + intercepts
    if len(intercepts) == 1 and not multi_label:
        return np.hstack([np.zeros_like(z), z])
    return z


def probabilities_of(logits: Array, multi_label: bool) -> NDArray[np.float64]:
    """Return probabilities: a softmax over the row, or a sigmoid a label."""
    return np.asarray(expit(logits) if multi_label else softmax(logits, axis=1))
