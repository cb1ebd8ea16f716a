"""Training curves: at log-spaced and at regular steps, in memory and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    return is_log_spaced(step) or step % max(steps // _REGULAR, 1) == 0 or step == steps - 1


def is_log_spaced(step: int) -> bool:
    """Whether a step is 0 or a power of two."""
    return step & (step - 1) == 0


class CurveWriter:
    """Collects the points of a curve, and writes each as a line where it is given a folder.

    Parameters
    ----------
    folder : Path or None
        Gets ``curve.jsonl``, which begins anew with ``points``.
    points : sequence of CurvePoint
        What a resumed job has already.
    """

    def __init__(self, folder: Path | None, points: Sequence[CurvePoint] = ()) -> None:
        self._points: list[CurvePoint] = []
        self._file = None if folder is None else (folder / FILE).open("w", encoding="utf-8")
        for point in points:
            self.add(point)

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        """Return the curve so far."""
        return tuple(self._points)

    def add(self, point: CurvePoint) -> None:
        """Record a point."""
        self._points.append(point)
        if self._file is not None:
            self._file.write(json.dumps(asdict(point)) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
