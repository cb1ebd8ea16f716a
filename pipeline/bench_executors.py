"""`penultimate bench executors`: what a job that does nothing costs, here and on dask workers of this machine.

The jobs go through what a study's go through: the same functions, a process of its own for each job at a time, its
output kept, on dask a worker that is looked at first. What is left out is what jobs themselves do.
"""

from __future__ import annotations

import functools
import logging
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.executors import run_jobs
from pipeline.fitness import needs_of_run
from pipeline.job_output import SUFFIX
from pipeline.remote import Terms

Rows = list[dict[str, Any]]
JOBS = 500
WORKERS = 2


def bench_executors(jobs: int = JOBS) -> Rows:
    """Run jobs that do nothing on every executor that can be started here.

    Parameters
    ----------
    jobs : int

    Returns
    -------
    list of dict
        One row a side: seconds in all, seconds until the first job came back (start-up), and milliseconds a job of
        those after it.
    """
    with tempfile.TemporaryDirectory() as folder:
        output_of = functools.partial(_output_of, Path(folder))
        sides = {
            "in this process": run_jobs(nothing, range(jobs), workers=1),
            f"local, {WORKERS} processes": run_jobs(
                nothing, range(jobs), workers=WORKERS, output_of=output_of
            ),
            f"dask, {WORKERS} workers on loopback": _on_dask(jobs, Path(folder)),
        }
        return [{"side": side, "jobs": jobs, **_measured(ended)} for side, ended in sides.items()]


def nothing(job: int) -> int:
    """Do nothing."""
    return job


def _output_of(folder: Path, job: int) -> Path:
    """Return where the output of a job is kept."""
    return folder / f"{job}{SUFFIX}"


def _on_dask(jobs: int, folder: Path) -> Iterable[Any]:
    """Start a scheduler and workers, connect, and run; the cluster is not part of a job's cost."""
    from distributed import LocalCluster

    from pipeline.dask_jobs import dask

    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        dask(cluster.scheduler_address, retries=0) as remote,
        needs_of_run((), [folder], [folder]) as needs,
    ):
        terms = Terms(needs, output_of=functools.partial(_output_of, folder))
        remote.check(range(jobs), terms)
        yield from remote.run(nothing, range(jobs), terms)


def _measured(ended: Iterable[Any]) -> dict[str, float]:
    """Time jobs from the first that came back to the last."""
    times = [time.perf_counter()]
    for job, outcome in ended:
        if outcome != job:
            raise RuntimeError(f"job {job} came back with {outcome!r}")
        times.append(time.perf_counter())
    first, rest = times[1] - times[0], times[-1] - times[1]
    each = 1000 * rest / max(1, len(times) - 2)
    return {"first_s": round(first, 3), "all_s": round(first + rest, 3), "ms_a_job": round(each, 3)}
