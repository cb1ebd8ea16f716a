"""Metrics of the protocol: fractions in [0, 1], from integer counts wherever a tie may decide.

Labels and scores are as in ``stages.records``: (n,) integers with (n, K) scores, or (n, K) of 1, 0 and
-1 (ignored pair) with (n, K) scores. Any strictly increasing function of the scores gives the same
top-1, mean per-class accuracy and mAP, so logits do as well as probabilities there.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.errors import InputError
from stages.records import Metric

Array = NDArray[Any]

CALIBRATION_BINS = 15


def evaluate(metric: Metric, labels: Array, scores: Array) -> float:
    """Return the metric that a data set is judged by.

    Parameters
    ----------
    metric
        "top_1", "mean_per_class" or "map_11_point".
    labels
        (n,) integers, or (n, K) of 1, 0 and -1 for multi-label.
    scores
        (n, K) finite or infinite numbers, the larger the likelier; NaN is refused.

    Returns
    -------
    float
        A fraction in [0, 1].

    Raises
    ------
    InputError
        Unknown metric, shapes that do not fit, NaN, no rows, or an accuracy asked of multi-label data.

    Examples
    --------
    >>> import numpy as np
    >>> evaluate("top_1", np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    if metric == "top_1":
        return top_1(labels, scores)
    if metric == "mean_per_class":
        return mean_per_class(labels, scores)
    if metric == "map_11_point":
        return map_11_point(labels, scores)
    raise InputError(f"metric {metric!r} is unknown: use top_1, mean_per_class or map_11_point")


def top_1(labels: Array, scores: Array) -> float:
    """Return the share of rows whose highest score is the true class; equal scores go to the lower index."""
    hits, totals = class_counts(labels, scores)
    return top_1_from_counts(hits, totals)


def mean_per_class(labels: Array, scores: Array) -> float:
    """Return the accuracy averaged over the classes that have rows, each class weighing the same."""
    hits, totals = class_counts(labels, scores)
    return mean_per_class_from_counts(hits, totals)


def class_counts(labels: Array, scores: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count hits and rows of each class.

    Returns
    -------
    hits, totals
        (K,) integers; those of several folds may be added before a metric is taken of them.

    Raises
    ------
    InputError
        As in `evaluate`.
    """
    labels, scores = _checked(labels, scores)
    if labels.ndim == 2:
        raise InputError("accuracy needs one label an image: use map_11_point for multi-label data")
    n_classes = scores.shape[1]
    right = labels[scores.argmax(axis=1) == labels]
    hits = np.bincount(right, minlength=n_classes)
    return hits.astype(np.int64), np.bincount(labels, minlength=n_classes).astype(np.int64)


def top_1_from_counts(hits: Array, totals: Array) -> float:
    """Return top-1 from the counts of `class_counts`."""
    return int(hits.sum()) / int(totals.sum())


def mean_per_class_from_counts(hits: Array, totals: Array) -> float:
    """Return mean per-class accuracy from the counts of `class_counts`.

    The sum runs over a common denominator in integers, so that equal values are equal floats.
    """
    present = [(int(h), int(t)) for h, t in zip(hits, totals, strict=True) if t]
    denominator = math.lcm(*(t for _, t in present))
    numerator = sum(h * (denominator // t) for h, t in present)
    return float(Fraction(numerator, denominator * len(present)))


def map_11_point(labels: Array, scores: Array) -> float:
    """Return the mean over labels of the 11-point interpolated average precision of VOC2007.

    Labels without a positive row have no average precision and are left out of the mean.

    Raises
    ------
    InputError
        As in `evaluate`, and where no label has a positive row.
    """
    values = average_precisions(labels, scores)
    defined = values[~np.isnan(values)]
    if not defined.size:
        raise InputError("no label has a positive row: average precision is undefined, add positives")
    return float(defined.mean())


def average_precisions(labels: Array, scores: Array) -> NDArray[np.float64]:
    """Return the 11-point average precision of each label, NaN where it has no positive row.

    Parameters
    ----------
    labels
        (n, K) of 1, 0 and -1, or (n,) integers, then each class against the rest.
    scores
        (n, K).

    Returns
    -------
    ndarray
        (K,) fractions.
    """
    labels, scores = _checked(labels, scores)
    if labels.ndim == 1:
        labels = (labels[:, None] == np.arange(scores.shape[1])).astype(np.int8)
    return np.array([_average_precision(labels[:, k], scores[:, k]) for k in range(scores.shape[1])])


def _average_precision(labels: Array, scores: Array) -> float:
    """Return VOC2007's measure of one ranking, as the development kit's ``VOCevalcls`` computes it.

    Pairs with label -1 leave the ranking, equal scores keep the order of the rows (the kit's sort is
    stable), and recall >= j/10 is asked in integers, where 0.1 * 3 and its like cannot err.
    """
    kept = labels >= 0
    positive = labels[kept] == 1
    n_positive = int(positive.sum())
    if n_positive == 0:
        return math.nan
    order = np.argsort(-scores[kept], kind="stable")
    true_positives = np.cumsum(positive[order], dtype=np.int64)
    precision = true_positives / np.arange(1, len(order) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    first = [int(np.argmax(10 * true_positives >= j * n_positive)) for j in range(11)]
    return float(best_from_here[first].sum() / 11)


def log_loss(labels: Array, logits: Array) -> float:
    """Return the mean cross-entropy in nats; multi-label: the mean over the pairs that are not ignored.

    Of logits, as probabilities near 1 are rounded to it. A true class with the logit -inf gives infinity, and
    labels that are all ignored give NaN.

    Parameters
    ----------
    labels
        (n,) or (n, K).
    logits
        (n, K): softmax over the columns; multi-label: a sigmoid each.

    Raises
    ------
    InputError
        As in `evaluate`.
    """
    labels, z = _checked(labels, logits)
    if labels.ndim == 1:
        losses = np.logaddexp.reduce(z, axis=1) - z[np.arange(len(labels)), labels]
    else:
        kept = labels >= 0
        losses = np.logaddexp(0, np.where(labels == 1, -z, z))[kept]
    return float(losses.mean()) if losses.size else math.nan


def calibration_error(labels: Array, probabilities: Array, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error over bins of equal width (Guo et al. 2017).

    Single-label: confidence is the highest probability, right or wrong is the top-1 prediction.
    Multi-label: every pair that is not ignored, its probability against its label.

    Raises
    ------
    InputError
        As in `log_loss`.
    """
    labels, p = _checked_probabilities(labels, probabilities)
    if labels.ndim == 1:
        confidence, right = p.max(axis=1), (p.argmax(axis=1) == labels)
    else:
        kept = labels >= 0
        confidence, right = p[kept], labels[kept] == 1
    which = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)
    if not confidence.size:
        return math.nan
    return float(np.abs(gap).sum() / len(confidence))


def logit(p: ArrayLike, epsilon: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Return ln(p / (1 - p)) of p clamped to [epsilon, 1 - epsilon].

    Parameters
    ----------
    p
        Fractions, any shape.
    epsilon
        See `logit_epsilon`; at 0 the logits of 0 and 1 are infinite.

    Raises
    ------
    InputError
        A value outside [0, 1]: percent instead of a fraction, most likely.
    """
    fractions: NDArray[np.float64] = np.asarray(p, dtype=np.float64)
    if np.any((fractions < 0) | (fractions > 1)):
        raise InputError("logit: a value lies outside [0, 1]: give fractions, not percent")
    low = np.asarray(epsilon, dtype=np.float64)
    clamped = np.clip(fractions, low, 1 - low)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(clamped) - np.log1p(-clamped))


def logit_epsilon(metric: Metric, labels: Array) -> float:
    """Return where the logit of a metric on these test labels is clamped (protocol, "Statistics").

    1/(2n + 2) for top-1, 1/(2K(max n_k + 1)) for mean per-class, 1/(2K(max positives + 1)) for mAP, K
    being the number of classes or labels that the metric averages over.
    """
    if metric == "top_1":
        return 1 / (2 * len(labels) + 2)
    counts = (labels == 1).sum(axis=0) if labels.ndim == 2 else np.bincount(labels)
    counts = counts[counts > 0]
    return 1 / (2 * len(counts) * (int(counts.max()) + 1))


def _checked(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Return both as arrays, or say what does not fit."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if scores.dtype.kind in "biu":  # -scores of unsigned or narrow integers would wrap
        scores = scores.astype(np.float64)
    if scores.ndim != 2 or labels.ndim not in (1, 2) or len(labels) != len(scores) or not len(labels):
        raise InputError(
            f"labels {labels.shape} and scores {scores.shape} do not fit: (n,) or (n, K), (n, K)"
        )
    if np.isnan(scores).any():
        raise InputError("the scores contain NaN: predictions are not comparable")
    if labels.ndim == 2:
        if labels.shape != scores.shape:
            raise InputError(f"labels {labels.shape} and scores {scores.shape} differ in shape")
        if not np.isin(labels, (-1, 0, 1)).all():
            raise InputError("multi-label labels are 1, 0 or -1 (ignore): another value was found")
    elif not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InputError(
            f"labels must be integers from 0 to {scores.shape[1] - 1}, one column of scores each"
        )
    return labels, scores


def _checked_probabilities(labels: Array, probabilities: Array) -> tuple[Array, NDArray[np.float64]]:
    """Return labels and float64 probabilities, or say what does not fit."""
    labels, p = _checked(labels, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise InputError("probabilities must lie in [0, 1]: these look like logits")
    return labels, p.astype(np.float64)
