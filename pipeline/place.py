"""Where a run reads and writes, and what a finished job says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes."""

    root: Path
    """The cache's."""
    output: Path
    """The study's."""


@dataclass(frozen=True)
class Done:
    """What a finished job has to say."""

    line: str
    """One line for people."""
    warnings: tuple[str, ...] = ()
