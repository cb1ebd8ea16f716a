"""Training curves: at log-spaced and at regular steps, in memory and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.errors import MissingExtraError
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
    tensorboard : bool
        Whether to write TensorBoard's events into the folder too, anew like the lines.

    Raises
    ------
    MissingExtraError
        TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path | None, points: Sequence[CurvePoint] = (), *, tensorboard: bool = False
    ) -> None:
        self._points: list[CurvePoint] = []
        self._file = None if folder is None else (folder / FILE).open("w", encoding="utf-8")
        self._events = None if folder is None or not tensorboard else _events(folder)
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
        if self._events is not None:
            for name, value in asdict(point).items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, point.step)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


def _events(folder: Path) -> Any:
    """Return TensorBoard's writer; what an earlier attempt wrote goes, its points are written again."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        raise MissingExtraError("tensorboard", "tensorboard") from problem
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))
