"""Where jobs run: in this process, or in worker processes of this machine (joblib's loky).

A worker that dies (killed, out of memory, a crash in native code) takes its pool with it. The jobs that
were under way are then run again one at a time, each in a process of its own, so that the one that kills
its worker is found and costs nobody else's result; the others get a fresh pool.

A run that is broken off asks its workers to end (`pipeline.worker`) and waits for what they have to save.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.job_output import WorkerDiedError, tail
from pipeline.worker import ENDING, enter, work

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

Outcome = Any
"""What the function returned, or the exception it raised."""

DIED = "its worker died: killed, out of memory, or a crash in native code"

PATIENCE_SECONDS = 300.0
"""For jobs that are broken off to save what they have: longer than a training step on a slow core."""


def worker_count(asked: int | None) -> int:
    """Return how many processes to use: as asked, else one a core that this process may use."""
    if asked is not None:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_job(together: int) -> int:
    """Return the threads of each of several jobs at a time: its share of the cores, at most OMP_NUM_THREADS."""
    share = max(1, worker_count(None) // max(1, together))
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(allowed)) if allowed.isdecimal() and int(allowed) else share


def run_jobs(
    function: Callable[[T], Any],
    jobs: Sequence[T],
    *,
    workers: int,
    retries: int = 1,
    output_of: Callable[[T], Path | None] = lambda _job: None,
) -> Iterator[tuple[T, Outcome]]:
    """Run the function on every job and yield each with its outcome, in order of completion.

    Parameters
    ----------
    function : callable
        Importable by name, so that a worker process can find it.
    jobs : sequence
        Picklable.
    workers : int
        1 = in this process.
    retries : int
        Of a job whose worker dies: it is run alone, until it comes through or has died that often again.
    output_of : callable
        Where what a job prints is kept while it runs in a worker; None = nowhere.

    Yields
    ------
    job, outcome
        An exception raised by the job is an outcome; interruption is not and goes on upwards.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, _outcome(function, job)
        return
    pending = list(jobs)
    while pending:
        unfinished = yield from _run_pool(function, pending, workers, output_of)
        suspects = 2 * workers + 1  # the pool hands out that many jobs at once, in order
        for job in unfinished[:suspects]:
            left = [job]
            for _ in range(max(1, retries)):
                left = yield from _run_pool(function, left, 1, output_of)
            if left:
                yield job, WorkerDiedError(DIED, tail(output_of(job)))
        pending = unfinished[suspects:]


def _outcome(function: Callable[[T], Any], job: T) -> Outcome:
    """Call, and hand an error back as a value."""
    try:
        return function(job)
    except Exception as error:  # the caller decides which errors end the run
        return error


def _run_pool(
    function: Callable[[T], Any], jobs: list[T], workers: int, output_of: Callable[[T], Path | None]
) -> Generator[tuple[T, Outcome], None, list[T]]:
    """Run jobs in a fresh pool; return those that a dying worker left unfinished."""
    if not jobs:
        return []
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky import ProcessPoolExecutor

    workers = min(workers, len(jobs))
    threads = threads_of_job(workers)
    pool = ProcessPoolExecutor(
        max_workers=workers, env=thread_limits(threads), initializer=enter, initargs=(threads, os.getpid())
    )
    futures: dict[Future[Any], T] = {}
    unfinished = []
    try:
        with _signals_blocked():
            for job in jobs:
                futures[pool.submit(work, function, job, output_of(job))] = job
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                unfinished.append(future)
            elif isinstance(error, KeyboardInterrupt):
                raise error
            else:
                yield futures[future], error if error is not None else future.result()
    except BaseException:
        _end_workers(futures)
        raise
    finally:
        pool.shutdown(wait=True, kill_workers=True)
    return [job for future, job in futures.items() if future in unfinished]


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold signals back while processes start, for them too: `enter` lets them through once they are awaited."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_workers(futures: Iterable[Future[Any]]) -> None:
    """Ask the workers to end, and wait until what is under way has saved what it has."""
    from concurrent.futures import wait
    from multiprocessing import active_children

    for future in futures:
        future.cancel()
    for process in active_children():
        process.terminate()
    wait(list(futures), timeout=PATIENCE_SECONDS)


def thread_limits(threads: int) -> dict[str, str]:
    """Return the environment that keeps a process to its share of the cores.

    Passive waiting matters as much as the number: OpenMP threads that spin for the next region of
    parallel work eat several times the processor time of the work itself when cores are shared.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": "PASSIVE"}
