"""What trainings that run in worker processes are doing just now, read from the curves that they write.

A training in this process tells its progress by itself; of those in workers nothing is heard before they end.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.jobs import Job, TrainJob
from pipeline.work_train import training_folder
from stages.records import CurvePoint
from stages.train.curve import FILE, describe

LOOK_SECONDS = 2.0
_NEXT_JOBS = 64
"""Jobs are begun in order: no others are looked at, however many thousands wait."""
_TAIL_BYTES = 4096
"""More than a few lines of a curve."""


def last_points(folder: Path) -> list[CurvePoint]:
    """Return the last points of a curve that is being written; none where there is none."""
    try:
        with (folder / FILE).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    return [point for line in lines if (point := _point_of(line)) is not None]


def _point_of(line: bytes) -> CurvePoint | None:
    """Read a line of a curve; None for one that is half there."""
    try:
        point = CurvePoint(**json.loads(line))
        return point if isinstance(point.step, int) else None
    except (ValueError, TypeError):
        return None


def line_of(job: TrainJob, folder: Path) -> str:
    """Say how far a training is; empty where it has not begun."""
    points = last_points(folder)
    if not points:
        return ""
    value = next((point.value for point in reversed(points) if point.value is not None), None)
    said = describe(points[-1], job.recipe.steps, job.recipe.batch_size, job.dataset.metric, value)
    return f"{job.name.partition('/')[2]} {points[-1].step + 1}/{job.recipe.steps} {said}"


@contextmanager
def told(
    jobs: Sequence[Job], output: Path, done: Collection[str], tell: Callable[[str], None]
) -> Iterator[None]:
    """Tell every few seconds what the trainings under way are doing, from a thread of its own.

    Parameters
    ----------
    jobs : sequence of Job
        Those that are not trainings are passed over.
    output : Path
        The study's.
    done : collection of str
        Names of jobs that ended; the caller adds to it.
    tell : callable
        Called with one line for all of them.
    """
    mine = [job for job in jobs if isinstance(job, TrainJob)]
    before: dict[str, int] = {}
    stop = threading.Event()

    def under_way() -> list[TrainJob]:
        """Return those of the next jobs whose curves changed since they were first looked at."""
        soon = itertools.islice((job for job in mine if job.name not in done), _NEXT_JOBS)
        states = {job.name: (job, _state(training_folder(job, output))) for job in soon}
        return [job for name, (job, state) in states.items() if before.setdefault(name, state) != state]

    def look() -> None:
        while not stop.wait(LOOK_SECONDS):
            lines = (line_of(job, training_folder(job, output)) for job in under_way())
            if line := "; ".join(filter(None, lines)):
                tell(line)

    under_way()
    thread = threading.Thread(target=look, name="live", daemon=True)
    if mine:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if mine:
            thread.join()


def _state(folder: Path) -> int:
    """Return when a curve was last written to; 0 where there is none."""
    try:
        return (folder / FILE).stat().st_mtime_ns
    except OSError:
        return 0
