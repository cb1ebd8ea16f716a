"""What names may hold, and the nearest known names to one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

UNSHOWN = r"\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"
"""As a regular expression's class: control characters, line breaks, what is of no width or turns a line around."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return up to ``count`` known names that look most like ``name``, best first."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    return [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'a' or 'b'?", or nothing where no known name is near."""
    matches = nearest(name, known)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""
