"""Training curves: at log-spaced and at regular steps, in memory and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stages.errors import MissingExtraError
from stages.records import CurvePoint

FILE = "curve.jsonl"
_REGULAR = 50
_SCORED_SHARE = 0.3
"""Images scored for the curve for every image trained on, at most. Scoring is a third of a training step's work,
so that the curve costs no more than a tenth of a training."""


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


def is_scored(step: int, steps: int, batch_size: int, n_scored: int, taken: int) -> bool:
    """Whether validation is scored after a step: log-spaced and regular steps, as far as the costs allow.

    Parameters
    ----------
    step, steps, batch_size : int
        Of the training.
    n_scored : int
        Images that are scored at a time.
    taken : int
        How often they were before.

    Examples
    --------
    >>> [s for s in range(100) if is_scored(s, 100, 32, 0, 0)]
    [0, 1, 2, 4, 8, 10, 16, 20, 30, 32, 40, 50, 60, 64, 70, 80, 90]
    """
    if step == steps - 1:
        return False  # after the last step the result is scored, and the curve gets its value
    wanted = is_log_spaced(step) or step % (5 * max(steps // _REGULAR, 1)) == 0
    return wanted and (taken + 1) * n_scored <= _SCORED_SHARE * (step + 1) * batch_size


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
        self._before_last = 0
        self._events = None if folder is None or not tensorboard else _events(folder)
        for point in points:
            self.add(point)

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        """Return the curve so far."""
        return tuple(self._points)

    def add(self, point: CurvePoint) -> None:
        """Record a point."""
        self._write(point)
        self._show(point.step, {name: value for name, value in asdict(point).items() if name != "step"})

    def complete(self, value: float) -> None:
        """Give the last point the metric on validation."""
        last = replace(self._points.pop(), value=value)
        if self._file is not None:
            self._file.seek(self._before_last)
            self._file.truncate()
        self._write(last)
        self._show(last.step, {"value": value})

    def _write(self, point: CurvePoint) -> None:
        """Keep a point, as a line too where there is a file."""
        self._points.append(point)
        if self._file is not None:
            self._before_last = self._file.tell()
            self._file.write(json.dumps(asdict(point)) + "\n")
            self._file.flush()

    def _show(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write numbers as TensorBoard's events where they are wanted."""
        if self._events is None:
            return
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


def describe(point: CurvePoint, steps: int, batch_size: int, metric: str, value: float | None) -> str:
    """Say in a few words how far a training is: loss, the newest metric on validation, speed, time left.

    Examples
    --------
    >>> describe(CurvePoint(49, 0.25, 0.01, 64.0), 100, 32, "top_1", 0.875)
    'loss 0.25, top_1 87.5 %, 64 images/s, 0:25 left'
    """
    speed = point.images_per_second
    words = [f"loss {point.loss:.3g}"]
    words += [] if value is None else [f"{metric} {100 * value:.1f} %"]
    words.append(f"{speed:.0f} images/s")
    if speed > 0:
        words.append(f"{_clock((steps - point.step - 1) * batch_size / speed)} left")
    return ", ".join(words)


def _clock(seconds: float) -> str:
    """Write a length of time as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _events(folder: Path) -> Any:
    """Return TensorBoard's writer; what an earlier attempt wrote goes, its points are written again."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        raise MissingExtraError("tensorboard", "tensorboard") from problem
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))
