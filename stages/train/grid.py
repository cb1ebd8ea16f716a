"""The grid of a training regime and the choice of its best point; no torch (protocol, "Fine-tuning")."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages.errors import InputError


@dataclass(frozen=True, order=True)
class GridPoint:
    """One candidate."""

    learning_rate: float
    """Peak of the schedule."""
    weight_decay: float
    """The grid's c; the optimiser gets c / learning_rate."""


@dataclass(frozen=True)
class Selection:
    """The chosen point and what a reader must know of the choice."""

    point: GridPoint
    value: float
    """The metric on validation, a fraction."""
    tied: tuple[GridPoint, ...] = ()
    """Other points of the same value, which lost by the rule for ties."""
    warnings: tuple[str, ...] = ()
    """An optimum at the edge of the grid, ties, diverged points."""


def log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return ``count`` numbers from low to high at equal ratios, the ends exact.

    Examples
    --------
    >>> log_spaced(1e-4, 1e-2, 3)
    (0.0001, 0.001, 0.01)
    """
    if count < 1 or not 0 < low <= high:
        raise InputError(f"a logarithmic grid needs 0 < low <= high and a count, not {low}, {high}, {count}")
    if count == 1:
        return (low,)
    step = (math.log10(high) - math.log10(low)) / (count - 1)
    inner = (float(f"{10 ** (math.log10(low) + i * step):.10g}") for i in range(1, count - 1))
    return (low, *inner, high)


def grid(learning_rates: Iterable[float], weight_decays: Iterable[float]) -> tuple[GridPoint, ...]:
    """Return every pair once, ascending.

    Raises
    ------
    InputError
        A rate that is not positive, a negative decay, or no point at all.
    """
    points = sorted({GridPoint(r, c) for c in set(weight_decays) for r in set(learning_rates)} or set())
    for point in points:
        if not (point.learning_rate > 0 and point.weight_decay >= 0):
            raise InputError(f"{point}: a learning rate is positive, a weight decay is not negative")
    if not points:
        raise InputError("the grid has no point: name at least one learning rate and one weight decay")
    return tuple(points)


def select(
    points: Sequence[GridPoint], values: Sequence[float | None], *, of: Sequence[GridPoint] | None = None
) -> Selection:
    """Choose the point of the largest value; ties go to the smaller rate, then to the larger decay.

    Parameters
    ----------
    points : sequence of GridPoint
        The grid.
    values : sequence of float or None
        The metric on validation of each, a fraction; None = the loss diverged.
    of : sequence of GridPoint, optional
        The whole grid, whose edges are told of, where ``points`` are what a search left of it.

    Raises
    ------
    InputError
        Lengths differ, or every point diverged.

    Examples
    --------
    >>> select([GridPoint(0.1, 0.0), GridPoint(0.01, 0.0)], [0.5, 0.5]).point.learning_rate
    0.01
    """
    if len(points) != len(values):
        raise InputError(f"{len(values)} values for {len(points)} grid points")
    finite = [(p, v) for p, v in zip(points, values, strict=True) if v is not None]
    if not finite:
        raise InputError(f"all {len(points)} grid points diverged: add smaller learning rates")
    best = max(v for _, v in finite)
    tied = sorted((p for p, v in finite if v == best), key=lambda p: (p.learning_rate, -p.weight_decay))
    warnings = [*_edges(tied[0], points if of is None else of)]
    if len(tied) > 1:
        taken = f"learning rate {tied[0].learning_rate:g}, weight decay {tied[0].weight_decay:g}"
        rule = "the smallest rate, then the largest decay"
        warnings.append(f"{len(tied)} grid points tie at {best:.6g}; taken: {taken} ({rule})")
    if len(finite) < len(points):
        warnings.append(f"{len(points) - len(finite)} of {len(points)} grid points diverged")
    return Selection(tied[0], best, tuple(tied[1:]), tuple(warnings))


@dataclass(frozen=True)
class Rung:
    """One round of successive halving."""

    points: int
    """How many are trained; the best of them go on to the next rung."""
    steps: int
    """Of each training, whose schedule ends there: nothing of an earlier rung is continued."""


def rungs(n_points: int, steps: int, factor: int = 3) -> tuple[Rung, ...]:
    """Return the rounds of successive halving (Jamieson and Talwalkar, 2016) over a grid.

    Each rung trains the best 1 / factor of the points before for factor times as many steps; the last one
    has the full number of steps and more than one point, so that the choice is made at full length.

    Examples
    --------
    >>> [(rung.points, rung.steps) for rung in rungs(56, 20_000)]
    [(56, 741), (19, 2222), (7, 6667), (3, 20000)]
    """
    if factor < 2:
        raise InputError(f"a halving factor of {factor} keeps everything: use 2 or more")
    counts = [n_points]
    while math.ceil(counts[-1] / factor) > 1 and steps >= factor ** len(counts):
        counts.append(math.ceil(counts[-1] / factor))
    last = len(counts) - 1
    return tuple(
        Rung(count, max(1, round(steps / factor ** (last - place)))) for place, count in enumerate(counts)
    )


def promote(points: Sequence[GridPoint], values: Sequence[float | None], count: int) -> tuple[GridPoint, ...]:
    """Return the ``count`` best points in the order of the grid; ties as in `select`, diverged ones never.

    Examples
    --------
    >>> promote([GridPoint(0.1, 0.0), GridPoint(0.2, 0.0), GridPoint(0.3, 0.0)], [0.5, None, 0.7], 2)
    (GridPoint(learning_rate=0.1, weight_decay=0.0), GridPoint(learning_rate=0.3, weight_decay=0.0))
    """
    finite = [(p, v) for p, v in zip(points, values, strict=True) if v is not None]
    ranked = sorted(finite, key=lambda pair: (-pair[1], pair[0].learning_rate, -pair[0].weight_decay))
    kept = {point for point, _ in ranked[:count]}
    return tuple(point for point in points if point in kept)


def _edges(point: GridPoint, points: Sequence[GridPoint]) -> Iterable[str]:
    """Name the axes on whose edge the point lies; no decay at all is an end that is meant to be one."""
    for name, axis in (
        ("learning_rate", {p.learning_rate for p in points}),
        ("weight_decay", _decays(points)),
    ):
        value = getattr(point, name)
        if len(axis) > 1 and value in (min(axis), max(axis)):
            which = "smallest" if value == min(axis) else "largest"
            yield f"the best {name} {value:g} is the {which} of its grid: widen the grid"


def _decays(points: Sequence[GridPoint]) -> set[float]:
    """Return the decays other than none."""
    return {p.weight_decay for p in points if p.weight_decay > 0}
