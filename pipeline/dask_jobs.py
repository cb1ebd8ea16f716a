"""Jobs on a dask cluster: the same functions, the same ledger, in worker processes of other machines.

A dask worker runs each job in a process of its own beside it, which lives on for the next job: a job that
dies in native code costs no worker, several threads of a worker share no random state, and a job that is
broken off can save what it has. A dask worker that dies is dask's to replace: its jobs go to the others.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import SurroundingsError
from pipeline.executors import DIED, PATIENCE_SECONDS, Outcome, thread_limits
from pipeline.provenance import versions

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from distributed import Client

T = TypeVar("T")

CONNECT_SECONDS = 15.0
ALONE_SECONDS = 120.0
"""How long a run waits for a first worker, or for another one where all are gone."""
ATTEMPTS = 3
"""Of a job whose process, or whose worker, dies."""
_LOOK_SECONDS = 1.0

_one_at_a_time = threading.Lock()
_processes: dict[int, ProcessPoolExecutor] = {}
"""The process beside this worker, by the worker's own: a fork inherits neither."""


def run_on_dask(
    function: Callable[[T], Any],
    jobs: Sequence[T],
    address: str,
    *,
    paths: Sequence[Path] = (),
    needs_gpu: Callable[[T], bool | None] = lambda _job: False,
) -> Iterator[tuple[T, Outcome]]:
    """Run the function on every job and yield each with its outcome, in order of completion.

    Parameters
    ----------
    function : callable
        Importable by name on every worker.
    jobs : sequence
        Picklable; files travel as paths, so every worker must see them where this machine does.
    address : str
        Of the scheduler: "tcp://host:8786".
    paths : sequence of Path
        What every worker must see; looked at before the first job.
    needs_gpu : callable
        Of a job: True, False, or None for "if there is one". Workers say that they have one by
        ``dask worker --resources GPU=1``.

    Yields
    ------
    job, outcome
        An exception raised by the job is an outcome. Broken off, it asks the workers to save and waits.

    Raises
    ------
    SurroundingsError
        The scheduler cannot be reached, no worker comes, or workers are not fit for the jobs.
    """
    with _client(address) as client:
        _await_workers(client, address)
        _refuse_unfit(client, paths)
        gpus = _have_gpus(client)
        if not gpus and any(needs_gpu(job) for job in jobs):
            raise SurroundingsError(
                f"{address}: no worker has a GPU: start some with `dask worker {address} --resources GPU=1`"
            )
        stop = f"penultimate-stop-{uuid.uuid4().hex}"
        futures = {}
        for job in jobs:
            resources = {"GPU": 1} if gpus and needs_gpu(job) is not False else None
            task = functools.partial(on_worker, function, stop=stop)
            futures[client.submit(task, job, pure=False, resources=resources)] = job
        yield from _outcomes(client, address, futures, stop)


def on_worker(function: Callable[[T], Any], job: T, stop: str) -> Outcome:
    """Do one job on a dask worker, in the process beside it; a job whose process dies is tried again."""
    from concurrent.futures.process import BrokenProcessPool

    from distributed import Event

    stopped = Event(stop)
    with _one_at_a_time:
        for _ in range(ATTEMPTS):
            if stopped.is_set():
                return KeyboardInterrupt()
            future = _process().submit(_guarded, function, job)
            try:
                outcome = _result(future, stopped)
            except BrokenProcessPool:
                _processes.pop(os.getpid()).shutdown(wait=False)
                continue
            if stopped.is_set():  # the process was asked to end, and begins no other job
                _processes.pop(os.getpid()).shutdown(wait=False)
            return outcome
    return RuntimeError(f"{DIED} ({ATTEMPTS} times)")


def _guarded(function: Callable[[T], Any], job: T) -> Outcome:
    """Call in the process of its own, and hand an error back as a value."""
    from pipeline.worker import work

    try:
        return work(function, job)
    except (Exception, KeyboardInterrupt) as error:  # the run decides which errors end it
        return error


def _process() -> ProcessPoolExecutor:
    """Return the process beside this worker, started where there is none."""
    from joblib.externals.loky import ProcessPoolExecutor as Pool

    from pipeline.worker import enter

    here = os.getpid()
    if here not in _processes:
        threads = _threads_of_this_worker()
        _processes[here] = Pool(
            max_workers=1, env=thread_limits(threads), initializer=enter, initargs=(threads, here)
        )
    return _processes[here]


def _threads_of_this_worker() -> int:
    """Return how many cores a job may use: the worker's threads, for it runs one job at a time."""
    from distributed import get_worker

    return max(1, get_worker().state.nthreads)


def _result(future: Any, stopped: Any) -> Outcome:
    """Wait for a job; where the run is broken off, ask its process to end and wait for what it saves."""
    from concurrent.futures import TimeoutError as NotYetError
    from multiprocessing import active_children

    asked = False
    end = float("inf")
    while True:
        try:
            return future.result(timeout=_LOOK_SECONDS)
        except NotYetError:
            if time.monotonic() > end:
                return KeyboardInterrupt()
        if not asked and stopped.is_set():
            asked, end = True, time.monotonic() + PATIENCE_SECONDS
            for process in active_children():
                process.terminate()


def _client(address: str) -> Client:
    """Connect, or say in one line why not."""
    try:
        from distributed import Client
    except ImportError as error:
        raise SurroundingsError(
            '--executor dask needs the package distributed: pip install "penultimate[dask]"'
        ) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise SurroundingsError(
            f"{address}: no dask scheduler answers ({type(error).__name__}): start one with `dask scheduler`, or "
            "correct the address (tcp://host:8786)"
        ) from error


def _await_workers(client: Client, address: str) -> None:
    """Wait for the first worker."""
    try:
        client.wait_for_workers(1, timeout=ALONE_SECONDS)
    except TimeoutError as error:
        raise SurroundingsError(
            f"{address}: no worker came within {ALONE_SECONDS:.0f} s: start some with `dask worker {address}`"
        ) from error


def _refuse_unfit(client: Client, paths: Sequence[Path]) -> None:
    """Look at every worker before the first job: the same versions, and every path there."""
    try:
        found: Mapping[str, Any] = client.run(facts, [str(path) for path in paths])
    except Exception as error:
        raise SurroundingsError(
            f"a dask worker cannot run penultimate ({type(error).__name__}: {' '.join(str(error).split())[:200]}): "
            "install the same version there"
        ) from error
    mistakes = []
    for worker, (theirs, lacking) in found.items():
        ours = versions()
        other = [
            f"{name} {theirs.get(name, 'none')} there, {ours.get(name, 'none')} here"
            for name in sorted({*ours, *theirs})
            if theirs.get(name) != ours.get(name)
        ]
        if other:
            mistakes.append(f"worker {worker}: other versions ({'; '.join(other)}): install the same there")
        mistakes += [f"worker {worker}: does not see {path}: put it where both do" for path in lacking]
    if mistakes:
        raise SurroundingsError("\n".join(mistakes))


def facts(paths: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the versions of a worker, and the paths that it does not see."""
    return dict(versions()), [path for path in paths if not Path(path).exists()]


def _have_gpus(client: Client) -> bool:
    """Whether any worker says that it has a GPU."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get("GPU", 0) for worker in workers)


def _outcomes(
    client: Client, address: str, futures: Mapping[Any, T], stop: str
) -> Iterator[tuple[T, Outcome]]:
    """Yield what comes back; a job that killed its workers is a failed job."""
    from distributed import Event

    waiting = set(futures)
    seen = time.monotonic()
    try:
        while waiting:
            done = {future for future in waiting if future.done()}
            for future in done:
                outcome = _outcome(future)
                if isinstance(outcome, KeyboardInterrupt):
                    raise outcome
                waiting.discard(future)
                yield futures[future], outcome
            if done or client.scheduler_info(n_workers=-1)["workers"]:
                seen = time.monotonic()
            elif time.monotonic() - seen > ALONE_SECONDS:
                raise SurroundingsError(
                    f"{address}: all workers are gone: start some, then run again to go on"
                )
            time.sleep(0.05 if done else 0.2)
    except BaseException:
        Event(stop, client=client).set()
        _await_saving(client, waiting)
        raise


def _outcome(future: Any) -> Outcome:
    """Return what became of a job."""
    error = future.exception()
    if error is None:
        return future.result()
    if type(error).__name__ == "KilledWorker":
        return RuntimeError(f"{DIED}: dask gave it up")
    return error


def _await_saving(client: Client, futures: set[Any]) -> None:
    """Take back what has not begun, and wait for what is under way to save."""
    running = {key for keys in client.processing().values() for key in keys}
    begun = [future for future in futures if future.key in running]
    client.cancel([future for future in futures if future.key not in running])
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and not all(future.done() for future in begun):
        time.sleep(0.2)
