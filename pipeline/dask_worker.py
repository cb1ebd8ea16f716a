"""The part of the dask executor that runs on a worker: jobs in processes beside it.

A worker does as many jobs side by side as it has threads, each in a process of its own that lives on for the next
job: a job that dies in native code costs no worker, jobs share no random state, and one that is broken off can
save what it has.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import SurroundingsError
from pipeline.executors import DIED, PATIENCE_SECONDS, Outcome, thread_limits, worker_count
from pipeline.fitness import Needs, unfit
from pipeline.job_output import WorkerDiedError, tail

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

T = TypeVar("T")

_LOOK_SECONDS = 1.0
_IDLE_SECONDS = 120
"""After which a process beside a worker ends, and gives back what its networks take."""

_lock = threading.Lock()
_idle: dict[int, list[_Beside]] = {}
"""Processes beside this worker, by the worker's own: a fork inherits none."""
_found_fit: set[str] = set()
"""Runs whose needs this worker meets."""


@dataclass(frozen=True)
class Assignment:
    """What a worker has to know of a job besides the job."""

    needs: Needs
    stop: str
    """Name of the event that breaks the run off."""
    attempts: int
    """That a job whose process dies has."""
    slots: Mapping[str, int]
    """Jobs that may run side by side on a machine, on all its workers together, by host."""
    output: Path | None = None
    """Where what the job prints is kept while it runs."""


def on_worker(function: Callable[[T], Any], job: T, assignment: Assignment) -> Outcome:
    """Do one job on a dask worker, in a process beside it; a job whose process dies is tried again."""
    from concurrent.futures.process import BrokenProcessPool

    from distributed import Event

    if lacking := _lacking(assignment.needs):
        return SurroundingsError("\n".join(lacking))
    stopped = Event(assignment.stop)
    for _ in range(assignment.attempts):
        if stopped.is_set():
            return KeyboardInterrupt()
        beside = _take(_threads(assignment.slots))
        try:
            outcome = beside.do(function, job, assignment.output, stopped)
        except BrokenProcessPool:
            beside.pool.shutdown(wait=False)
            continue
        if isinstance(outcome, KeyboardInterrupt):  # the process was asked to end, and begins no other job
            beside.pool.shutdown(wait=False)
            continue
        with _lock:
            _idle[os.getpid()].append(beside)
        return outcome
    if stopped.is_set():
        return KeyboardInterrupt()
    times = f" ({assignment.attempts} times)" if assignment.attempts > 1 else ""
    return WorkerDiedError(f"{DIED}{times}", tail(assignment.output))


def _threads(slots: Mapping[str, int]) -> int:
    """Return how many cores a job may use: its share of this machine's."""
    from distributed import get_worker
    from distributed.comm.addressing import get_address_host

    worker = get_worker()
    together = max(slots.get(get_address_host(worker.address), 0), worker.state.nthreads)
    return max(1, worker_count(None) // together)


def lacking_on_worker(needs: Needs) -> list[str]:
    """Say what this worker lacks for a run, one line each."""
    return unfit(needs)


def _lacking(needs: Needs) -> list[str]:
    """Look once for each run: a worker may come after the others were looked at."""
    if needs.run in _found_fit:
        return []
    lines = unfit(needs)
    if not lines:
        _found_fit.add(needs.run)
        return []
    from distributed import get_worker

    return [f"worker {get_worker().address}: {line}" for line in lines]


@dataclass(frozen=True)
class _Beside:
    """A process beside this worker."""

    pool: ProcessPoolExecutor
    threads: int

    def do(self, function: Callable[[T], Any], job: T, output: Path | None, stopped: Any) -> Outcome:
        """Do a job; where the run is broken off, ask the process to end and wait for what it saves.

        Raises
        ------
        BrokenProcessPool
            The process died.
        """
        from concurrent.futures import TimeoutError as NotYetError

        process = self.pool.submit(os.getpid).result()
        future = self.pool.submit(_guarded, function, job, output)
        asked, end = False, float("inf")
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except NotYetError:
                if time.monotonic() > end:
                    return KeyboardInterrupt()
            if not asked and stopped.is_set():
                asked, end = True, time.monotonic() + PATIENCE_SECONDS
                os.kill(process, signal.SIGTERM)


def _take(threads: int) -> _Beside:
    """Return a process that idles, else a new one."""
    from joblib.externals.loky import ProcessPoolExecutor as Pool

    from pipeline.worker import enter

    here = os.getpid()
    # A nanny marks its worker as one that may have no children, so that none outlive it: ours watch their parent.
    multiprocessing.current_process()._config.pop("daemon", None)  # type: ignore[attr-defined]
    with _lock:
        idle = _idle.setdefault(here, [])
        for beside in idle:
            if beside.threads == threads:
                idle.remove(beside)
                return beside
    pool = Pool(
        max_workers=1,
        timeout=_IDLE_SECONDS,
        env=thread_limits(threads),
        initializer=enter,
        initargs=(threads, here),
    )
    return _Beside(pool, threads)


def _guarded(function: Callable[[T], Any], job: T, output: Path | None) -> Outcome:
    """Call in the process of its own, and hand an error back as a value."""
    from pipeline.worker import work

    try:
        return work(function, job, output)
    except (Exception, KeyboardInterrupt) as error:  # the run decides which errors end it
        return error
