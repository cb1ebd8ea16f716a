"""Where jobs run: in this process, or in worker processes of this machine (joblib's loky).

A worker that dies (killed, out of memory, a crash in native code) takes its pool with it. The jobs that
were under way are then run again one at a time, each in a process of its own, so that the one that kills
its worker is found and costs nobody else's result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Outcome = Any
"""What the function returned, or the exception it raised."""


def worker_count(asked: int | None) -> int:
    """Return how many processes to use: as asked, else one a core that this process may use."""
    if asked is not None:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(function: Callable[[T], Any], jobs: Sequence[T], *, workers: int) -> Iterator[tuple[T, Outcome]]:
    """Run the function on every job and yield each with its outcome, in order of completion.

    Parameters
    ----------
    function : callable
        Importable by name, so that a worker process can find it.
    jobs : sequence
        Picklable.
    workers : int
        1 = in this process.

    Yields
    ------
    job, outcome
        An exception raised by the job is an outcome; interruption is not and goes on upwards.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, _outcome(function, job)
        return
    unfinished = yield from _run_pool(function, list(jobs), workers)
    for job in unfinished:
        left = yield from _run_pool(function, [job], 1)
        if left:
            yield (
                job,
                RuntimeError("its worker died: killed, out of memory, or a crash in native code"),
            )


def _outcome(function: Callable[[T], Any], job: T) -> Outcome:
    """Call, and hand an error back as a value."""
    try:
        return function(job)
    except Exception as error:  # the caller decides which errors end the run
        return error


def _run_pool(
    function: Callable[[T], Any], jobs: list[T], workers: int
) -> Generator[tuple[T, Outcome], None, list[T]]:
    """Run jobs in a fresh pool; return those that a dying worker left unfinished."""
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky import ProcessPoolExecutor

    workers = min(workers, len(jobs))
    threads = max(1, worker_count(None) // workers)
    pool = ProcessPoolExecutor(
        max_workers=workers, env=thread_limits(threads), initializer=_limit_threads, initargs=(threads,)
    )
    unfinished = []
    try:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                unfinished.append(futures[future])
            else:
                yield futures[future], error if error is not None else future.result()
    finally:
        pool.shutdown(wait=True, kill_workers=True)
    return unfinished


def thread_limits(threads: int) -> dict[str, str]:
    """Return the environment that keeps a process to its share of the cores.

    Passive waiting matters as much as the number: OpenMP threads that spin for the next region of
    parallel work eat several times the processor time of the work itself when cores are shared.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": "PASSIVE"}


def _limit_threads(threads: int) -> None:
    """Limit libraries that were loaded before the environment could tell them."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=threads)
