"""The scores by which people rank backbones without fitting anything, each with what it may be trusted for."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.analysis.checks import check_table
from stages.analysis.h_score import h_scores
from stages.analysis.leep import leep
from stages.analysis.logme import logme
from stages.errors import InputError
from stages.records import FeatureTable

TRANSFERABILITY_SCORES = ("logme", "shrinkage_h_score", "h_score", "leep")


@dataclass(frozen=True)
class TransferabilityScore:
    """One score of one backbone on one data set; the larger the better."""

    name: str
    """One of `TRANSFERABILITY_SCORES`."""
    value: float | None
    """None = not defined."""
    reason: str = ""
    """Why it is not defined; empty where it is."""
    seconds: float = 0.0
    """Wall time."""
    details: Mapping[str, float] = field(default_factory=dict)
    """logme: steps, classes_not_converged, classes_at_bound; shrinkage_h_score: shrinkage."""


def transferability(
    train: FeatureTable,
    source_probabilities: NDArray[Any] | None = None,
    *,
    why_none: str = "no source probabilities are at hand",
) -> tuple[TransferabilityScore, ...]:
    """Compute every transferability score of the training rows.

    Parameters
    ----------
    train : FeatureTable
        Training rows only: a score that has seen test predicts nothing (protocol, "Other experiments").
    source_probabilities : ndarray of shape (n, Z), optional
        Of the source classes for the same rows; without them there is no LEEP.
    why_none : str
        The reason to give then.

    Returns
    -------
    tuple of TransferabilityScore
        In the order of `TRANSFERABILITY_SCORES`.

    Raises
    ------
    InputError
        Features and labels that do not fit each other.
    """
    check_table(train, "train")
    return (_logme(train), *_h_scores(train), _leep(train, source_probabilities, why_none))


def _logme(train: FeatureTable) -> TransferabilityScore:
    """LogME, not defined where a class has no finite maximum of the evidence."""
    started = time.perf_counter()
    found = logme(train.features, train.labels, len(train.class_names))
    details = {"steps": float(found.steps), "classes_not_converged": float((~found.converged).sum())}
    details["classes_at_bound"] = float(found.at_bound.sum())
    seconds = time.perf_counter() - started
    if math.isfinite(found.value):
        return TransferabilityScore("logme", found.value, "", seconds, details)
    without = train.class_names[int(np.argmax(~np.isfinite(found.evidence)))]
    reason = f"class {without!r} has no finite evidence: it has no training rows or all of them"
    return TransferabilityScore("logme", None, reason, seconds, details)


def _h_scores(train: FeatureTable) -> tuple[TransferabilityScore, TransferabilityScore]:
    """Both H-scores."""
    started = time.perf_counter()
    try:
        found = h_scores(train.features, train.labels, len(train.class_names))
    except InputError as problem:
        return (
            TransferabilityScore("shrinkage_h_score", None, str(problem)),
            TransferabilityScore("h_score", None, str(problem)),
        )
    seconds = time.perf_counter() - started
    return (
        TransferabilityScore("shrinkage_h_score", found.shrunk, "", seconds, {"shrinkage": found.shrinkage}),
        TransferabilityScore("h_score", found.plain, found.reason, seconds),
    )


def _leep(train: FeatureTable, probabilities: NDArray[Any] | None, why_none: str) -> TransferabilityScore:
    """LEEP, where there are source probabilities."""
    if train.multi_label:
        return TransferabilityScore("leep", None, "LEEP is not defined for multi-label data")
    if probabilities is None:
        return TransferabilityScore("leep", None, why_none)
    started = time.perf_counter()
    value = leep(probabilities, train.labels)
    return TransferabilityScore("leep", value, "", time.perf_counter() - started)
