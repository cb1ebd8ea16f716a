"""What is left of a study, as tasks with seconds, in phases that come one after the other.

A task is what one worker does at a time: the extractions that share a decode, one probe, one training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.jobs import Stage
from pipeline.simulate import makespan


@dataclass(frozen=True)
class Task:
    """One unit of work."""

    name: str
    seconds: float
    """On the whole machine, or on one core where the phase says so."""
    jobs: int = 1
    """How many jobs of the plan it does."""


@dataclass(frozen=True)
class Phase:
    """Tasks that may run side by side; the next phase begins when all are done."""

    stage: Stage
    tasks: tuple[Task, ...]
    start: float
    """Seconds that a process takes before its first task."""
    cores: int = 1
    """Of a worker whose tasks run on a core each; 1 = a task takes the whole machine."""
    processes: int = 1
    """Tasks that a worker runs side by side at most."""
    factor: float = 1.0
    """What the study's own records say that the seconds are to be multiplied with."""

    @property
    def jobs(self) -> int:
        """How many jobs of the plan it does."""
        return sum(task.jobs for task in self.tasks)

    def seconds(self, workers: int = 1) -> float:
        """Return when the last task is done; fewer tasks than cores have several cores each."""
        if not self.tasks:
            return 0.0
        lanes = min(self.processes, math.ceil(len(self.tasks) / workers))
        speed = max(1, self.cores // lanes) / self.factor
        return makespan([task.seconds / speed for task in self.tasks], workers * lanes, self.start)

    def corrected(self, factor: float) -> Phase:
        """Return the phase with the study's own rates."""
        return replace(self, factor=factor)


@dataclass
class Work:
    """What is left, and what cannot be told."""

    phases: list[Phase] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """One line for each kind of job that nothing is known of."""

    def add(self, phase: Phase) -> None:
        """Add a phase, unless it is empty."""
        if phase.tasks:
            self.phases.append(phase)


def total_seconds(phases: Sequence[Phase], workers: int = 1) -> float:
    """Return the seconds of phases that run one after the other."""
    return sum(phase.seconds(workers) for phase in phases)
