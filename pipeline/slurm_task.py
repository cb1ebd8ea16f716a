"""The part of the slurm executor that runs in a job of Slurm's: one job of ours, and what it does when asked to end.

Slurm asks by SIGTERM (scancel, preemption) and by SIGUSR2 before the time is up (submitit's choice). The job then
saves what it has and leaves a mark, not a result: it is to be run again, by Slurm where that requeues it, else by us.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import EXIT_INTERRUPTED, SurroundingsError
from pipeline.executors import Outcome
from pipeline.fitness import Needs, unfit
from pipeline.job_output import marked

MARK = ".interrupted"


@dataclass(frozen=True)
class SlurmTask:
    """One job, as submitit pickles it."""

    function: Callable[[Any], Any]
    job: Any
    needs: Needs
    cores: int
    folder: Path
    """Of the files of this run."""
    output: Path | None
    """The file that tells that the job is under way."""

    def __call__(self) -> Outcome:
        """Do the job and hand an error back as a value; end the process where it was broken off."""
        from pipeline.worker import enter_alone, work

        if lines := unfit(self.needs):
            return SurroundingsError("\n".join(f"a slurm node {line}" for line in lines))
        mark = self.folder / f"{number_of_this()}{MARK}"
        mark.unlink(missing_ok=True)
        enter_alone(self.cores, (signal.SIGTERM, signal.SIGUSR2))
        try:
            with marked(self.output):
                return work(self.function, self.job)
        except KeyboardInterrupt:
            mark.touch()
            os._exit(EXIT_INTERRUPTED)  # not through submitit, which would take this for a result
        except Exception as error:
            return error


def number_of_this() -> str:
    """Return the number of this job as squeue shows it: "12_3" in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
