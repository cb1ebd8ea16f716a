"""Where jobs run when not here: what a stage tells an executor, and what every executor does.

An executor runs the same functions on the same jobs as `pipeline.executors` does in processes of this machine; only
the records and the cache, on a file system that all share, come back to the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.config import Study
from pipeline.executors import Outcome
from pipeline.fitness import Needs

T = TypeVar("T")


def _nothing(_job: Any) -> None:
    return None


def _no(_job: Any) -> bool:
    return False


def _silent(_line: str) -> None:
    return None


@dataclass(frozen=True)
class Terms:
    """What an executor is told about the jobs of a stage."""

    needs: Needs
    """Of every worker."""
    wants_gpu: Callable[[Any], bool | None] = _no
    """Of a job: True, False, or None for "if there is one"."""
    output_of: Callable[[Any], Path | None] = _nothing
    """Where what a job prints is kept while it runs."""
    resumes: Callable[[Any], bool] = _no
    """Whether a job that is broken off saves what it has, so that giving it another go is progress."""
    tell: Callable[[str], None] = _silent
    """Told in a few words how many jobs are under way, for the bar."""
    say: Callable[[str], None] = _silent
    """Told in lines what people may want to know."""


class Remote(Protocol):
    """An executor of other machines, ready to take jobs."""

    def check(self, jobs: Sequence[Any], terms: Terms) -> None:
        """Find out before the first job whether they can be run.

        Raises
        ------
        SurroundingsError
            With one line for each thing that is not as it has to be.
        """

    def run(
        self, function: Callable[[T], Any], jobs: Sequence[T], terms: Terms
    ) -> Iterator[tuple[T, Outcome]]:
        """Run the function on every job and yield each with its outcome, in order of completion.

        An exception raised by the job is an outcome. A run that is broken off asks the jobs under way to save
        what they have, waits for them, and begins no other.
        """

    def free_bytes(self, device: str) -> int:
        """Return the memory that a worker has free for networks on a device."""


def executor_of(study: Study) -> AbstractContextManager[Remote | None]:
    """Return the executor that a study names, to be entered; None inside = processes of this machine."""
    name, retries = study.execution.executor, study.execution.retries
    if name == "slurm":
        from pipeline.slurm_jobs import slurm

        return slurm(study.slurm, study.output, retries=retries)
    if name.startswith("dask:"):
        from pipeline.dask_jobs import dask

        return dask(name.removeprefix("dask:"), retries=retries)
    return contextlib.nullcontext()
