"""Raw rows: one image as its source describes it (id, file, label text, split, group)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.errors import DatasetError
from stages.records import SplitName

SHOWN = 3
"""Examples that a message names before it counts the rest."""


@dataclass(frozen=True)
class Row:
    """One image as its source describes it."""

    id: str
    path: Path
    label: str
    """As written: "rose", or "desert|sea|?trees" where multi-label."""
    split: SplitName
    group: str = ""


def some(items: Sequence[str]) -> str:
    """Name the first few of many."""
    head = ", ".join(repr(item) for item in items[:SHOWN])
    return head if len(items) <= SHOWN else f"{head} and {len(items) - SHOWN} more"


def joined(names: Sequence[str], where: str) -> str:
    """Join the names of several labels into a row's text.

    Raises
    ------
    DatasetError
        A name is empty, holds the sign that joins, or begins with the one that marks.
    """
    strange = [name for name in names if not name or "|" in name or name.startswith("?")]
    if strange:
        raise DatasetError(f"{where}: a label is {strange[0]!r}; a name holds no | and begins with no ?")
    return "|".join(names)


def pad_numbers(labels: Sequence[str]) -> list[str]:
    """Write class numbers with equally many digits, so that their order as text is that of the numbers.

    Labels that are not all numbers stay as they are.

    Examples
    --------
    >>> pad_numbers(["9", "10|2"]), pad_numbers(["9", "nine"])
    (['09', '10|02'], ['9', 'nine'])
    """
    parts = [label.split("|") for label in labels]
    if not all(part.isdecimal() for row in parts for part in row):
        return list(labels)
    width = max((len(part) for row in parts for part in row), default=0)
    return ["|".join(part.zfill(width) for part in row) for row in parts]


def names_of(label: str, multi_label: bool) -> list[str]:
    """Return the class names in a label text, without the mark of ignored ones."""
    return [part.removeprefix("?") for part in label.split("|") if part] if multi_label else [label]
