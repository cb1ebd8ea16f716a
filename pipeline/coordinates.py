"""What people find an entry by, beside the figures that a list shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import StudyError

FIGURES = ("key", "rows", "dimension", "bytes", "path")
"""Columns of a list that no coordinate may be named like."""


def met(there: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether an entry's coordinates have all these values, as people write them.

    Examples
    --------
    >>> met({"dataset": "pets", "seed": 3}, {"seed": "3"}), met({"dataset": "pets"}, {"seed": "None"})
    (True, False)
    """
    return all(name in there and str(there[name]) == value for name, value in wanted.items())


def row_of(
    figures: Mapping[str, Any], coordinates: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Return a row of a list; a coordinate that somebody named like a figure stands apart from it."""
    return {
        **figures,
        **{f"coordinate {name}" if name in FIGURES else name: coordinates.get(name) for name in names},
    }


def refuse_figures(coordinates: Mapping[str, str]) -> None:
    """Refuse coordinates named like a figure.

    Raises
    ------
    StudyError
        With the first one.
    """
    for name in FIGURES:
        if name in coordinates:
            raise StudyError(
                f"{name}={coordinates[name]}: {name!r} is what a list shows itself; name it otherwise"
            )
