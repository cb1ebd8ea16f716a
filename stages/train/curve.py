"""Training curves: at log-spaced and at regular steps, in memory and as JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from stages.records import CurvePoint

FILE = "curve.jsonl"
_REGULAR = 50


def is_recorded(step: int, steps: int) -> bool:
    """Whether a step is on the curve: 0, 1, 2, 4, 8, ..., every 50th part of the run, and the last.

    Examples
    --------
    >>> [s for s in range(200) if is_recorded(s, 200)][:9]
    [0, 1, 2, 4, 8, 12, 16, 20, 24]
    """
    return step & (step - 1) == 0 or step % max(steps // _REGULAR, 1) == 0 or step == steps - 1


class CurveWriter:
    """Collects the points of a curve, and writes each as a line where it is given a folder."""

    def __init__(self, folder: Path | None, steps: int) -> None:
        self._steps = steps
        self._points: list[CurvePoint] = []
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / FILE).open("w", encoding="utf-8")

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        """Return the curve so far."""
        return tuple(self._points)

    def add(self, point: CurvePoint) -> None:
        """Record a step if it is on the curve."""
        if is_recorded(point.step, self._steps):
            self._points.append(point)
            if self._file is not None:
                self._file.write(json.dumps(asdict(point)) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
