"""Rows laid out in columns, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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


def _text(value: object) -> str:
    """Show a cell; an unknown value is a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
