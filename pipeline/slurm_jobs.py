"""Jobs on Slurm: arrays of submitit, one job of ours a task, looked after until each has a result or a reason.

What runs in a task stands in `pipeline.slurm_task`. A task that ends without a result is submitted again: a death
(out of memory, a lost node, a crash) as often as `retries` says, a preemption or the end of its time as often as
it takes, where the job goes on from what it saved. A task that somebody cancels is a failed job.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline import slurm_queue
from pipeline.errors import SurroundingsError
from pipeline.executors import DIED, PATIENCE_SECONDS, Outcome, thread_limits
from pipeline.job_output import WorkerDiedError, end_of
from pipeline.remote import Terms
from pipeline.slurm_queue import RUNNING, WAITING, NoAnswerError
from pipeline.slurm_task import MARK, SlurmTask
from pipeline.tables import SlurmTable

T = TypeVar("T")

SILENT_SECONDS = 600.0
"""How long the controller may leave squeue without an answer before a run gives up; its jobs go on."""
LATE_SECONDS = 30.0
"""After a task's end within which its result must be seen; network file systems take their time."""
SAVING_SECONDS = 120
"""Before a task's time is up, when it is asked to save."""
RESUMPTIONS = 100
"""Of a job that is broken off and goes on from what it saved."""
_LOOK_SECONDS = (1.0, 10.0)
"""Between two looks: while things change, and at most."""
_NODE_BYTES = 8 << 30
"""Taken for the memory of a node that nobody has seen yet."""


@contextlib.contextmanager
def slurm(table: SlurmTable, output: Path, *, retries: int) -> Iterator[Slurm]:
    """Make a place for the files of this run's tasks, below the study's output, and clear it away at the end.

    Raises
    ------
    SurroundingsError
        There is no Slurm here, or it would not take jobs like these.
    """
    if importlib.util.find_spec("submitit") is None:
        raise SurroundingsError(
            '--executor slurm needs the package submitit: pip install "penultimate[slurm]"'
        )
    slurm_queue.refuse_unacceptable(slurm_queue.parameters(table, gpu=False))
    run = uuid.uuid4().hex[:12]
    folder = output / "slurm" / run
    folder.mkdir(parents=True, exist_ok=True)
    yield Slurm(table, folder, f"penultimate-{run}", retries)
    shutil.rmtree(folder, ignore_errors=True)  # not after an error: people may want the logs
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


@dataclass(frozen=True)
class Slurm:
    """Slurm as an executor; see `pipeline.remote.Remote`."""

    table: SlurmTable
    folder: Path
    """On a file system that the nodes share."""
    name: str
    """Of all jobs of this run in Slurm's queue."""
    retries: int = 2

    def check(self, jobs: Sequence[Any], terms: Terms) -> None:
        """Look for GPUs where jobs need them; paths and versions are looked at by each node, before its job."""
        if any(terms.wants_gpu(job) for job in jobs) and not slurm_queue.has_gpus(self.table.partition):
            where = f"partition {self.table.partition}" if self.table.partition else "any partition"
            raise SurroundingsError(
                f"slurm: no node of {where} has a GPU (sinfo shows none): name one with --slurm partition=NAME, "
                "or let device be auto"
            )

    def run(
        self, function: Callable[[T], Any], jobs: Sequence[T], terms: Terms
    ) -> Iterator[tuple[T, Outcome]]:
        """Run the function on every job and yield each with its outcome, in order of completion.

        Raises
        ------
        SurroundingsError
            A node is not fit for the jobs, or Slurm does not answer any more.
        """
        stage = _Stage(self, function, terms)
        todo, pause = deque(jobs), _LOOK_SECONDS[0]
        try:
            while todo or stage.under_way:
                stage.submit(todo)
                ended = list(stage.ended(todo))
                terms.tell(stage.summary())
                yield from ended
                pause = _LOOK_SECONDS[0] if ended else min(1.2 * pause, _LOOK_SECONDS[1])
                if stage.under_way:
                    time.sleep(pause)
        except BaseException:
            stage.break_off()
            raise

    def free_bytes(self, device: str) -> int:  # noqa: ARG002
        """Return what a node is taken to have: none is asked before its turn."""
        return _NODE_BYTES


@dataclass
class _Task:
    """A task in Slurm's hands."""

    job: Any
    handle: Any
    """submitit's."""
    gone_since: float | None = None
    """When it was first seen to have ended, without a result so far."""


@dataclass
class _Stage:
    """The jobs of one call, those in Slurm's hands among them."""

    slurm: Slurm
    function: Callable[[Any], Any]
    terms: Terms
    under_way: dict[str, _Task] = field(default_factory=dict)
    """By the number that squeue shows."""
    deaths: Counter[int] = field(default_factory=Counter)
    """By the identity of the job."""
    breaks: Counter[int] = field(default_factory=Counter)
    answered: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """Say where the jobs are."""
        return f"{self.counts['running']} running, {self.counts['waiting']} waiting in slurm"

    def submit(self, todo: deque[Any]) -> None:
        """Give Slurm what there is to do, as arrays; those that need a GPU apart."""
        gpus = slurm_queue.has_gpus(self.slurm.table.partition) if todo else False
        kinds: dict[bool, list[Any]] = {}
        while todo:
            job = todo.popleft()
            kinds.setdefault(gpus and self.terms.wants_gpu(job) is not False, []).append(job)
        for gpu, jobs in kinds.items():
            size = slurm_queue.largest_array()
            for start in range(0, len(jobs), size):
                self._submit_array(jobs[start : start + size], gpu=gpu)

    def _submit_array(self, jobs: Sequence[Any], *, gpu: bool) -> None:
        """Submit one array."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        table = self.slurm.table
        executor = SlurmExecutor(self.slurm.folder, max_num_timeout=0)
        limits = [f"export {name}={value}" for name, value in thread_limits(table.cpus).items()]
        executor.update_parameters(
            job_name=self.slurm.name,
            array_parallelism=table.side_by_side,
            signal_delay_s=min(SAVING_SECONDS, 60 * table.minutes // 2),
            setup=[*limits, *table.setup],
            srun_args=[f"--cpus-per-task={table.cpus}"],
            **slurm_queue.parameters(table, gpu=gpu),
        )
        tasks = [
            SlurmTask(
                self.function, job, self.terms.needs, table.cpus, self.slurm.folder, self.terms.output_of(job)
            )
            for job in jobs
        ]
        try:
            handles = executor.submit_array(tasks)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            words = " ".join(str(error).split())
            raise SurroundingsError(f"slurm does not take the jobs: {words[-300:]}") from error
        self.under_way |= {h.job_id: _Task(job, h) for h, job in zip(handles, jobs, strict=True)}
        self.terms.say(f"slurm: {len(jobs)} jobs submitted as {handles[0].job_id.partition('_')[0]}")

    def ended(self, todo: deque[Any]) -> Iterator[tuple[Any, Outcome]]:
        """Look at every task: yield what has come to an end, and put back what is to be run again."""
        try:
            states = slurm_queue.states(self.slurm.name)
        except NoAnswerError as error:
            if time.monotonic() - self.answered > SILENT_SECONDS:
                raise SurroundingsError(
                    f"slurm does not answer ({error}); jobs under way go on, run again to go on with them"
                ) from error
            return
        self.answered = time.monotonic()
        self.counts.clear()
        for number, task in list(self.under_way.items()):
            state = states.get(number, "GONE")
            if state in WAITING or state in RUNNING:
                self.counts["waiting" if state in WAITING else "running"] += 1
                task.gone_since = None
                continue
            outcome = self._outcome(number, task, state, todo)
            if outcome is not _NOT_YET:
                del self.under_way[number]
                if isinstance(outcome, SurroundingsError):
                    raise outcome
                if outcome is not _AGAIN:
                    yield task.job, outcome

    def _outcome(self, number: str, task: _Task, state: str, todo: deque[Any]) -> Outcome:
        """Return what became of a task that is over: its result, a failure, or that it is run again."""
        if task.handle.paths.result_pickle.exists():
            return _result(task.handle)
        key, interrupted = id(task.job), (self.slurm.folder / f"{number}{MARK}").exists()
        if state == "CANCELLED":
            return WorkerDiedError(f"cancelled in slurm (job {number})", self._log(task))
        if interrupted or state in ("TIMEOUT", "PREEMPTED", "DEADLINE"):
            self.breaks[key] += 1
            if self.terms.resumes(task.job) and self.breaks[key] <= RESUMPTIONS:
                todo.append(task.job)
                return _AGAIN
            limit = (
                f"its time in slurm was up or it was preempted (job {number}, time = {self.slurm.table.time})"
            )
            return WorkerDiedError(f"{limit}: give it more with --slurm time=...", self._log(task))
        if task.gone_since is None:
            task.gone_since = time.monotonic()
        if time.monotonic() - task.gone_since < LATE_SECONDS and state in ("COMPLETED", "GONE"):
            return _NOT_YET
        self.deaths[key] += 1
        if self.deaths[key] <= self.slurm.retries:
            todo.append(task.job)
            return _AGAIN
        times = f" ({self.deaths[key]} times)" if self.deaths[key] > 1 else ""
        return WorkerDiedError(f"{DIED}{times}: slurm job {number} {state}", self._log(task))

    def _log(self, task: _Task) -> str:
        """Return the last lines of what a task printed."""
        lines = [end_of(path) for path in (task.handle.paths.stdout, task.handle.paths.stderr)]
        return "\n".join(text for text in lines if text)

    def break_off(self) -> None:
        """Ask every task to save and end, and wait for that."""
        if not self.under_way:
            return
        end = time.monotonic() + PATIENCE_SECONDS
        with contextlib.suppress(NoAnswerError):
            slurm_queue.cancel(self.slurm.name)
            while time.monotonic() < end:
                found = slurm_queue.states(self.slurm.name)
                if not any(state in RUNNING or state in WAITING for state in found.values()):
                    return
                time.sleep(1.0)


_NOT_YET = object()
_AGAIN = object()


def _result(handle: Any) -> Outcome:
    """Read what a task left."""
    try:
        return handle.result()
    except Exception as error:  # submitit's own: it could not pickle, or not load
        return error
