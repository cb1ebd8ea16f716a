"""Jobs on a dask cluster: the same functions, the same ledger, in worker processes of other machines.

What runs on a worker stands in `pipeline.dask_worker`. A dask worker that dies is dask's to replace: its jobs go to
the others. Only as many jobs are handed over at a time as keep the workers busy, since every one of them carries the
rows of its data set.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.dask_client import connected
from pipeline.dask_worker import Assignment, lacking_on_worker, on_worker
from pipeline.errors import SurroundingsError
from pipeline.executors import DIED, PATIENCE_SECONDS, Outcome
from pipeline.extraction_groups import free_bytes
from pipeline.job_output import WorkerDiedError, tail
from pipeline.remote import Terms

if TYPE_CHECKING:
    from distributed import Client, Future

    from pipeline.fitness import Needs

T = TypeVar("T")

ANSWER_SECONDS = 60.0
"""For a worker to say whether it is fit: its first look loads the package from a network file system."""
ALONE_SECONDS = 120.0
"""How long a run waits for a first worker, or for another one where all are gone."""
_LOOK_SECONDS = 1.0
"""Between two looks at the workers while no job ends."""
_SUSPECT = object()
_AHEAD = 4
"""Jobs handed over for each that can run, so that no worker waits for the next one."""


@contextlib.contextmanager
def dask(address: str, *, retries: int) -> Iterator[Dask]:
    """Connect to a scheduler, wait for a first worker, and give the connection back at the end.

    Parameters
    ----------
    address : str
        Of the scheduler: "tcp://host:8786".
    retries : int
        Of a job whose process dies. One whose dask worker dies is tried again by the scheduler, as often as its
        own settings say (``distributed.scheduler.allowed-failures``).

    Raises
    ------
    SurroundingsError
        The scheduler cannot be reached, or no worker comes.
    """
    if importlib.util.find_spec("distributed") is None:
        raise SurroundingsError(
            '--executor dask needs the package distributed: pip install "penultimate[dask]"'
        )
    with connected(address) as client:
        try:
            client.wait_for_workers(1, timeout=ALONE_SECONDS)
        except TimeoutError as error:
            raise SurroundingsError(
                f"{address}: no worker came within {ALONE_SECONDS:.0f} s: start some with `dask worker {address}`"
            ) from error
        yield Dask(client, address, retries)


@dataclass(frozen=True)
class Dask:
    """A connection to a cluster; see `pipeline.remote.Remote`."""

    client: Client
    address: str
    retries: int = 2

    def check(self, jobs: Sequence[Any], terms: Terms) -> None:
        """Look at every worker before the first job: versions, paths, a GPU where one is needed."""
        mistakes = [line for lines in self._looked_at(terms.needs) for line in lines]
        if not self.has_gpus() and any(terms.wants_gpu(job) for job in jobs):
            start = f"`dask worker {self.address} --resources GPU=1`"
            mistakes.append(
                f"{self.address}: no worker has a GPU: start some with {start}, or set device = 'auto'"
            )
        if mistakes:
            raise SurroundingsError("\n".join(mistakes))

    def _looked_at(self, needs: Needs) -> list[list[str]]:
        """Return what each worker lacks; one that does not answer lacks that."""

        def look(worker: str, lines: list[str]) -> None:
            try:
                (found,) = self.client.run(lacking_on_worker, needs, workers=[worker]).values()
                said = [f"worker {worker}: {line}" for line in found]
            except Exception as error:
                said = [
                    f"worker {worker}: cannot run penultimate ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}): install the same version there"
                ]
            lines[:] = said

        end = time.monotonic() + ANSWER_SECONDS
        asked = []
        for worker in self.workers():
            lines = [
                f"worker {worker}: does not answer within {ANSWER_SECONDS:.0f} s: end it, or wait until it does"
            ]
            # distributed waits for ever where a worker hangs; a thread that is left behind ends with the process.
            thread = threading.Thread(target=look, args=(worker, lines), daemon=True)
            thread.start()
            asked.append((thread, lines))
        for thread, _ in asked:
            thread.join(max(0.0, end - time.monotonic()))
        return [list(lines) for _, lines in asked]

    def run(
        self, function: Callable[[T], Any], jobs: Sequence[T], terms: Terms
    ) -> Iterator[tuple[T, Outcome]]:
        """Run the function on every job and yield each with its outcome, in order of completion.

        Raises
        ------
        SurroundingsError
            The cluster is gone, or a worker that came later is not fit for the jobs.
        """
        stage = _Stage(self, function, terms)
        todo, seen = deque(jobs), time.monotonic()
        try:
            while todo or stage.under_way or stage.suspects:
                stage.hand_over(todo)
                terms.tell(stage.summary())
                ended = stage.next_ended()
                if ended is not None or stage.workers():
                    seen = time.monotonic()
                elif time.monotonic() - seen > ALONE_SECONDS:
                    raise SurroundingsError(
                        f"{self.address}: all workers are gone: start some, then run again to go on"
                    )
                if ended is not None:
                    yield ended
        except BaseException:
            stage.break_off()
            raise

    def free_bytes(self, device: str) -> int:
        """Ask a worker, in the process beside it, where a job would run."""
        from pipeline.fitness import Needs
        from pipeline.provenance import versions

        terms = Terms(
            Needs(uuid.uuid4().hex, versions()), wants_gpu=lambda _: None if device != "cpu" else False
        )
        ((_, outcome),) = self.run(free_bytes, [device], terms)
        return outcome if isinstance(outcome, int) else 0

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the scheduler knows of its workers, by address."""
        found: Mapping[str, Mapping[str, Any]] = self.client.scheduler_info(n_workers=-1)["workers"]
        return found

    def has_gpus(self) -> bool:
        """Whether any worker says that it has a GPU."""
        return any(worker.get("resources", {}).get("GPU", 0) for worker in self.workers().values())


class _Stage:
    """The jobs of one call, those under way among them."""

    def __init__(self, cluster: Dask, function: Callable[[Any], Any], terms: Terms) -> None:
        self._cluster, self._function, self._terms = cluster, function, terms
        self._stop = f"penultimate-stop-{uuid.uuid4().hex}"
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._gpus = cluster.has_gpus()
        self._workers = cluster.workers()
        self.under_way: dict[Future[Any], Any] = {}
        self.suspects: list[Any] = []
        """Jobs that were on workers when those died too often; each is tried once more, alone."""
        self._alone: Any = None

    def summary(self) -> str:
        """Say how many jobs are under way."""
        running = min(len(self.under_way), self._slots())
        return f"{running} under way on {len(self._workers)} workers"

    def hand_over(self, todo: deque[Any]) -> None:
        """Submit as many jobs as keep the workers busy."""
        places: Counter[str] = Counter()
        for worker in self._workers.values():
            places[worker["host"]] += worker["nthreads"]
        if not todo and not self.under_way and self.suspects:
            self._alone = self.suspects.pop(0)
            self._submit(self._alone, places)
        while todo and len(self.under_way) < _AHEAD * max(1, self._slots()):
            self._submit(todo.popleft(), places)

    def _submit(self, job: Any, places: Mapping[str, int]) -> None:
        """Give a job to the cluster."""
        assignment = Assignment(
            needs=self._terms.needs,
            stop=self._stop,
            attempts=1 + self._cluster.retries,
            slots=dict(places),
            output=self._terms.output_of(job),
        )
        task = functools.partial(on_worker, self._function, assignment=assignment)
        wants = self._gpus and self._terms.wants_gpu(job) is not False
        resources = {"GPU": 1} if wants else None
        future = self._cluster.client.submit(task, job, pure=False, resources=resources)
        self.under_way[future] = job
        future.add_done_callback(self._ended.put)

    def next_ended(self) -> tuple[Any, Outcome] | None:
        """Wait a while for a job to end and return it with its outcome; None where none did."""
        try:
            future = self._ended.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None
        job = self.under_way.pop(future)
        outcome = self._outcome(future, job)
        if outcome is _SUSPECT:
            self.suspects.append(job)
            return None
        if isinstance(outcome, KeyboardInterrupt | SurroundingsError):
            raise outcome
        return job, outcome

    def workers(self) -> int:
        """Look how many workers there are."""
        try:
            self._workers = self._cluster.workers()
        except (OSError, TimeoutError) as error:
            raise self._gone() from error
        return len(self._workers)

    def break_off(self) -> None:
        """Take back what has not begun, ask the others to save, and wait for that."""
        from distributed import Event

        client = self._cluster.client
        if not self.under_way or client.status != "running":
            return
        with contextlib.suppress(OSError, TimeoutError):
            Event(self._stop, client=client).set()
            begun = {key for keys in client.processing().values() for key in keys}
            client.cancel([future for future in self.under_way if future.key not in begun])
            end = time.monotonic() + PATIENCE_SECONDS
            saving = [future for future in self.under_way if future.key in begun]
            while time.monotonic() < end and not all(future.done() for future in saving):
                time.sleep(0.2)

    def _slots(self) -> int:
        """Count the jobs that can run at a time."""
        return sum(worker["nthreads"] for worker in self._workers.values())

    def _outcome(self, future: Future[Any], job: Any) -> Outcome:
        """Return what became of a job."""
        if future.status in ("cancelled", "lost"):
            raise self._gone()
        error = future.exception()
        if error is None:
            return future.result()
        if type(error).__name__ == "KilledWorker":
            if job is not self._alone:  # dask blames whatever a dead worker had, waiting or under way
                return _SUSPECT
            return WorkerDiedError(f"{DIED}: dask gave it up", tail(self._terms.output_of(job)))
        return error

    def _gone(self) -> SurroundingsError:
        """Say that the scheduler does not know our jobs any more."""
        return SurroundingsError(
            f"{self._cluster.address}: the dask scheduler is gone: start it, then run again to go on"
        )
