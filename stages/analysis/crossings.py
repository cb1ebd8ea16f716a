"""At how many examples one regime overtakes another."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.errors import InputError

Array = NDArray[Any]
Floats = NDArray[np.float64]

ALL_RESAMPLES = 5_000
"""Up to so many resamples are all gone through; of more, ``draws`` are drawn."""


@dataclass(frozen=True)
class Crossing:
    """Where the first curve comes to lie above the second for good."""

    verdict: Literal["crosses", "always above", "not above at the end"]
    """Of the mean curves; "always above" means at every number of examples."""
    at: float | None
    """Examples where the mean curves cross; None unless they do."""
    interval: tuple[float | None, float | None]
    """Percentiles over resampled repeats; None = beyond the smallest or the largest number studied."""
    level: float
    """Of the interval."""
    shares: tuple[float, float, float]
    """Resamples in which the first curve crosses, lies always above, is not above at the end."""
    resamples: int
    exhaustive: bool
    """Whether the resamples are all there are."""


def crossing(
    examples: Array,
    first: Array,
    second: Array,
    *,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Crossing:
    """Find at how many examples the first regime overtakes the second and stays ahead.

    Parameters
    ----------
    examples
        (L,) numbers of examples (a class, or in all), ascending.
    first, second
        (R, L) log odds of R repeats on the same R subsets; finite.
    level
        Of the interval.
    draws, seed
        Resamples where not all can be gone through.

    Returns
    -------
    Crossing

    Raises
    ------
    InputError
        Shapes that do not fit, numbers not ascending or not above 0, log odds that are not finite, a level
        outside (0, 1).

    Notes
    -----
    Ours. The difference of the mean log odds is taken as linear in the logarithm of the number of examples
    between neighbouring numbers; the crossing is the last place where it turns from not above zero to above.
    The interval is the percentile bootstrap over repeats, both regimes of a repeat drawn together because they
    saw the same subset. With three repeats there are 27 resamples: the interval is the range of what the
    subsets say rather than one with a coverage, and it says nothing about other data sets.

    Examples
    --------
    >>> found = crossing(np.array([1, 4, 16]), np.array([[-1.0, 0.5, 2.0]]), np.array([[0.0, 0.0, 0.0]]))
    >>> found.verdict, round(found.at, 3)
    ('crosses', 2.52)
    """
    numbers, a, b = (np.asarray(v, dtype=np.float64) for v in (examples, first, second))
    _check(numbers, a, b, level, draws)
    differences = a - b
    picks = _picks(len(a), draws, seed)
    places = np.array([_last_crossing(numbers, differences[list(pick)].mean(axis=0)) for pick in picks])
    # Order statistics, not interpolated: a percentile between two of them may lie beyond the range.
    low = float(np.quantile(places, (1 - level) / 2, method="lower"))
    high = float(np.quantile(places, (1 + level) / 2, method="higher"))
    own = _last_crossing(numbers, differences.mean(axis=0))
    return Crossing(
        verdict="always above" if own == 0 else "not above at the end" if own == np.inf else "crosses",
        at=own if 0 < own < np.inf else None,
        interval=(low if 0 < low < np.inf else None, high if 0 < high < np.inf else None),
        level=level,
        shares=(
            float(((places > 0) & (places < np.inf)).mean()),
            float((places == 0).mean()),
            float((places == np.inf).mean()),
        ),
        resamples=len(picks),
        exhaustive=len(a) ** len(a) <= ALL_RESAMPLES,
    )


def _last_crossing(numbers: Floats, difference: Floats) -> float:
    """Return where the difference last turns positive: 0 where it always is, infinity where it ends otherwise."""
    not_above = np.flatnonzero(difference <= 0)
    if not not_above.size:
        return 0.0
    i = int(not_above[-1])
    if i == len(difference) - 1:
        return float("inf")
    share = -difference[i] / (difference[i + 1] - difference[i])
    low, high = np.log(numbers[i]), np.log(numbers[i + 1])
    return float(np.exp(low + share * (high - low)))


def _picks(repeats: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """Return resamples of the repeats, all of them where they are few."""
    if repeats**repeats <= ALL_RESAMPLES:
        return list(itertools.product(range(repeats), repeat=repeats))
    rng = np.random.default_rng(seed)
    return [tuple(pick) for pick in rng.integers(0, repeats, size=(draws, repeats)).tolist()]


def _check(numbers: Floats, first: Floats, second: Floats, level: float, draws: int) -> None:
    """Raise `InputError` where the curves cannot be compared."""
    if first.ndim != 2 or first.shape != second.shape or numbers.shape != first.shape[1:] or not first.size:
        raise InputError(
            f"examples {numbers.shape}, curves {first.shape} and {second.shape} do not fit: (L,), (R, L), (R, L)"
        )
    if not (numbers > 0).all() or not (np.diff(numbers) > 0).all():
        raise InputError("examples: give numbers above 0 in ascending order")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError(
            "a curve has a missing or infinite value: leave out numbers that not every repeat has"
        )
    if not 0 < level < 1 or draws < 1:
        raise InputError(f"level = {level}, draws = {draws}: give one in (0, 1) and one above 0")
