"""Rows laid out in columns, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.errors import one_line

_FEW = 8
"""Items of a list that are shown."""


def rows_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay rows out in columns; numbers to the right."""
    if not rows:
        return ""
    header = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in header] for row in rows]
    widths = [max(len(header[i]), *(len(line[i]) for line in cells)) for i in range(len(header))]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in header]
    lines = []
    for line in [header, *cells]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def facts_text(facts: Mapping[str, Any]) -> str:
    """Lay facts out a line each, those of a mapping as ``outer.inner``; of a long list the beginning.

    Examples
    --------
    >>> print(facts_text({"rows": 7, "recipe": {"size": [3, 64]}, "ids": list("abcdefghij")}))
    rows         7
    recipe.size  3, 64
    ids          a, b, c, d, e, f, g, h, ... (10)
    """
    lines = list(_flat(facts))
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _flat(facts: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every fact; names and texts may be somebody else's."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{outer}{name}.")
        elif isinstance(value, list | tuple):
            shown = ", ".join(_text(item) for item in value[:_FEW])
            yield (
                one_line(f"{outer}{name}"),
                one_line(f"{shown}, ... ({len(value)})" if len(value) > _FEW else shown),
            )
        else:
            yield one_line(f"{outer}{name}"), one_line(_text(value))


def _text(value: object) -> str:
    """Show a cell; an unknown value is a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
