"""How long a schedule has to be: the first length that comes close to the best (protocol, "Convergence")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import InputError

Array = NDArray[Any]

MARGIN = math.log(0.9)
"""Added to a regime's maximum log odds: 90 % of its best odds are enough."""


@dataclass(frozen=True)
class Reached:
    """One regime on one data set: when its log odds came within the margin of their maximum."""

    steps: float
    """First schedule length studied that met the threshold."""
    threshold: float
    """Log odds: the regime's own maximum plus the margin."""
    maximum: float
    """Log odds."""
    censored: bool
    """The maximum lies at the longest schedule: a longer one might do better, and the threshold rise."""
    epochs: float | None
    """``steps`` times the batch size over the training rows; None where they are not known."""
    interpolated: float
    """Steps at which the log odds, linear in the logarithm of the steps between lengths, meet the threshold;
    equal to ``steps`` where the shortest schedule does. An extra: the protocol's figure is ``steps``."""


@dataclass(frozen=True)
class MeanReached:
    """One regime over data sets."""

    datasets: int
    steps: float
    """Arithmetic mean."""
    epochs: float | None
    """Arithmetic mean; None where one data set's is not known."""
    interpolated: float
    """Arithmetic mean."""
    censored: int
    """Data sets whose maximum lies at the longest schedule: with any, the means are "at least"."""


@dataclass(frozen=True)
class SpeedUp:
    """How many times as many steps the slow regime needs, over the data sets that both have."""

    fast: MeanReached
    slow: MeanReached
    datasets: tuple[str, ...]
    ratio_of_means: float
    """Mean steps of the slow regime over those of the fast one: the paper's 17."""
    per_dataset: tuple[float, ...]
    """Slow over fast, in the order of ``datasets``."""
    geometric_mean: float
    """Of ``per_dataset``."""


def reached(
    steps: Sequence[int], log_odds: Sequence[float], *, batch_size: int = 256, n_train: int | None = None
) -> Reached:
    """Find the first schedule length that meets the threshold.

    Parameters
    ----------
    steps
        (L,) lengths of independent runs, ascending; the schedule of each ends there.
    log_odds
        (L,) of the test score of each, finite.
    batch_size, n_train
        For epochs.

    Returns
    -------
    Reached

    Raises
    ------
    InputError
        Less than two lengths, lengths that do not ascend, or log odds that are not finite.

    Notes
    -----
    Threshold = maximum + ln 0.9 (protocol, "Convergence"; the paper's Figure 8).

    Examples
    --------
    >>> found = reached([100, 1000, 10000], [0.0, 1.9, 2.0])
    >>> found.steps, found.censored, round(found.interpolated)
    (1000, True, 994)
    """
    lengths, values = np.asarray(steps, dtype=np.float64), np.asarray(log_odds, dtype=np.float64)
    if lengths.ndim != 1 or lengths.shape != values.shape or len(lengths) < 2:
        raise InputError(f"{lengths.size} lengths and {values.size} log odds: give two or more of each")
    if not (lengths > 0).all() or not (np.diff(lengths) > 0).all():
        raise InputError("steps: give lengths above 0 in ascending order")
    if not np.isfinite(values).all():
        raise InputError("log odds: every schedule length needs a finite one, leave out those without")
    threshold = float(values.max()) + MARGIN
    i = int(np.argmax(values >= threshold))
    return Reached(
        steps=int(lengths[i]),
        threshold=threshold,
        maximum=float(values.max()),
        censored=bool(values.argmax() == len(values) - 1),
        epochs=None if not n_train else float(lengths[i]) * batch_size / n_train,
        interpolated=_interpolated(lengths, values, threshold, i),
    )


def _interpolated(lengths: Array, values: Array, threshold: float, i: int) -> float:
    """Return where the line between the length before and the i-th one meets the threshold."""
    if i == 0:
        return float(lengths[0])
    share = (threshold - values[i - 1]) / (values[i] - values[i - 1])
    low, high = np.log(lengths[i - 1]), np.log(lengths[i])
    return float(np.exp(low + share * (high - low)))


def mean_reached(found: Sequence[Reached]) -> MeanReached:
    """Average over data sets.

    Raises
    ------
    InputError
        Nothing to average.
    """
    if not found:
        raise InputError("no data set has a convergence curve: nothing to average")
    epochs = [one.epochs for one in found if one.epochs is not None]
    return MeanReached(
        datasets=len(found),
        steps=float(np.mean([one.steps for one in found])),
        epochs=float(np.mean(epochs)) if len(epochs) == len(found) else None,
        interpolated=float(np.mean([one.interpolated for one in found])),
        censored=sum(one.censored for one in found),
    )


def speed_up(fast: dict[str, Reached], slow: dict[str, Reached]) -> SpeedUp:
    """Compare two regimes over the data sets that both have.

    Parameters
    ----------
    fast, slow
        Data set to what was reached: fine-tuned and from scratch, say.

    Raises
    ------
    InputError
        No data set in common.
    """
    names = tuple(sorted(set(fast) & set(slow)))
    if not names:
        raise InputError("the two regimes have no data set in common: nothing to compare")
    means = mean_reached([fast[n] for n in names]), mean_reached([slow[n] for n in names])
    ratios = tuple(slow[n].steps / fast[n].steps for n in names)
    return SpeedUp(
        fast=means[0],
        slow=means[1],
        datasets=names,
        ratio_of_means=means[1].steps / means[0].steps,
        per_dataset=ratios,
        geometric_mean=float(np.exp(np.mean(np.log(ratios)))),
    )
