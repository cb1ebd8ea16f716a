"""Running the ready jobs of one stage, and keeping the books of what came of them."""

from __future__ import annotations

import contextlib
import errno
import functools
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache import DamagedEntryError, KeyMissingError
from pipeline.elsewhere import Elsewhere, output_file
from pipeline.errors import SurroundingsError
from pipeline.executors import Outcome, run_jobs, threads_of_job, worker_count
from pipeline.extraction_groups import ExtractionGroup, Unit, each_job, free_bytes, plan_units
from pipeline.extraction_pass import extract_group
from pipeline.job_output import WorkerDiedError
from pipeline.jobs import ExtractJob, Job, Planned, ProbeJob, Stage, TrainJob
from pipeline.kept_networks import keep_only
from pipeline.ledger import file_stem
from pipeline.live import told
from pipeline.place import Done, Place
from pipeline.progress import Reporter
from pipeline.work import perform, record_failure
from pipeline.worker import threads_of_worker
from stages.records import Progress

SURROUNDINGS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.EIO}
"""Errors of the operating system that concern the machine and not a job."""


@dataclass(frozen=True)
class Failure:
    """A job that could not be done."""

    job: str
    reason: str
    """One line."""
    log: Path
    """Where the traceback lies."""


@dataclass
class Books:
    """What came of the jobs of a run so far."""

    done: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bereft: set[str] = field(default_factory=set)
    """Jobs whose features were damaged or gone when they came to read them; each is tried once more."""

    def tried(self) -> set[str]:
        """Return the jobs that are not tried again."""
        return {*self.done, *(failure.job for failure in self.failed)}


def run_stage(
    stage: Stage,
    todo: Sequence[Planned],
    books: Books,
    place: Place,
    *,
    workers: int | None,
    reporter: Reporter,
    remakable: frozenset[str] = frozenset(),
    siblings: Sequence[Planned] = (),
    retries: int = 1,
    elsewhere: Elsewhere | None = None,
) -> None:
    """Run jobs that are ready.

    Parameters
    ----------
    stage : str
        For the bar.
    todo : sequence of Planned
        With their jobs.
    books : Books
        Added to.
    place : Place
    workers : int or None
        Processes for jobs that do not fill the cores by themselves; None = one a core.
    reporter : Reporter
    remakable : frozenset of str
        Keys of features that this run can extract again: a probe that finds one of them damaged or gone
        does not fail the first time.
    siblings : sequence of Planned
        Every job of the stage, done or not: they decide how many threads a training on the CPU has, so that
        a run that was interrupted computes to the bit what an uninterrupted one does.
    retries : int
        Of a job whose worker dies.
    elsewhere : Elsewhere, optional
        The executor of other machines; None = processes of this one.

    Raises
    ------
    SurroundingsError
        The machine said no.
    """
    for planned in todo:
        if planned.state == "stale":
            reporter.say(f"{planned.name}: {planned.why}")
    jobs = [planned.job for planned in todo if planned.job is not None]
    processes = _processes(jobs, workers)
    here = elsewhere is None and (processes == 1 or len(jobs) == 1)
    if elsewhere is None:
        jobs = [with_its_memory(job, min(processes, len(jobs))) for job in jobs]
    ended: set[str] = set()
    with reporter.bar(stage, "jobs") as progress:

        def tell(note: str) -> None:
            """Show how far what is under way is."""
            progress(len(ended), len(jobs), note)

        tell("")
        if elsewhere is not None:
            outcomes = elsewhere.outcomes(functools.partial(_perform, place=place), jobs, place, tell)
        else:
            shares = _shares(siblings or todo, processes)
            outcomes = _here(jobs, place, shares, tell, processes=processes, retries=retries)
        unheard = [] if here or elsewhere is not None or reporter.quiet else jobs
        ending = contextlib.closing(_forgetting_networks(outcomes))
        with told(unheard, place.output, ended, tell), ending as done:
            for job, outcome in done:
                ended.add(job.name)
                tell(job.name)
                _book(job, outcome, books, place, reporter, remakable)


def _book(
    job: Job, outcome: Outcome, books: Books, place: Place, reporter: Reporter, remakable: frozenset[str]
) -> None:
    """Enter what came of a job, and tell it."""
    if isinstance(outcome, Done):
        books.done.append(job.name)
        reporter.say(f"{job.name}: {outcome.line}")
        for warning in outcome.warnings:
            books.warnings.append(f"{job.name}: {warning}")
            reporter.say(f"{job.name}: warning: {warning}")
    elif _can_be_remade(job, outcome, books, remakable):
        books.bereft.add(job.name)
        reporter.say(f"{job.name}: {loss(outcome)}: made again")
    else:
        books.failed.append(_failure(job, outcome, place))
        reporter.complain(f"{job.name}: failed: {books.failed[-1].reason}")


def loss(error: BaseException) -> str:
    """Say what became of cached features that could not be read."""
    if isinstance(error, DamagedEntryError):
        return f"cached features are damaged ({error.reason})"
    return "cached features are gone"


def _here(
    jobs: Sequence[Job],
    place: Place,
    shares: Mapping[bool, int],
    tell: Callable[[str], None],
    *,
    processes: int,
    retries: int,
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs in processes of this machine; one alone in this process, which can tell how far it is."""

    def inside(part: int, total: int, note: str) -> None:
        tell(f"{note} {part}/{total}".strip())

    function = functools.partial(_perform, place=place, shares=shares)
    if processes == 1 or len(jobs) == 1:
        function = functools.partial(_perform, place=place, shares=shares, progress=inside)
    units = plan_units(jobs, free_bytes)
    output_of = functools.partial(output_file, place=place)
    yield from each_job(run_jobs(function, units, workers=processes, retries=retries, output_of=output_of))


def _forgetting_networks(
    outcomes: Iterator[tuple[Job, Outcome]],
) -> Generator[tuple[Job, Outcome], None, None]:
    """Give back what networks took, however the stage ends."""
    try:
        yield from outcomes
    finally:
        keep_only(())


def _can_be_remade(job: Job, error: object, books: Books, remakable: frozenset[str]) -> bool:
    """Whether a job only lacks features that this run extracts again; no job is given a third chance."""
    return (
        isinstance(error, KeyMissingError)
        and isinstance(job, ProbeJob)
        and remakable.issuperset(job.entries.values())
        and job.name not in books.bereft
    )


def _processes(jobs: Sequence[Job], workers: int | None) -> int:
    """Return how many processes the jobs of a stage are run in.

    Probes and small trainings on CPU do not fill the cores by themselves: on two cores two jobs of one
    thread each get twice as far as one after the other with two threads. A stage-one pass keeps a GPU busy
    by itself, and so does a training, unless the study says how many of them share one.
    """
    if any(isinstance(job, ExtractJob) for job in jobs):
        return 1
    on_gpu = [job for job in jobs if isinstance(job, TrainJob) and not _trains_on_cpu(job.recipe.device)]
    if on_gpu:
        return min(job.jobs_per_device for job in on_gpu)
    return worker_count(workers)


def with_its_memory(job: Job, together: int) -> Job:
    """Give a probe its share of the memory that the study allows all of them."""
    if isinstance(job, ProbeJob) and job.memory is not None:
        return replace(job, memory=max(1, job.memory // together))
    return job


def _trains_on_cpu(device: str) -> bool:
    """Whether a training job will run on the CPU, told without loading torch."""
    if device == "auto":
        return not any(Path(node).exists() for node in ("/dev/nvidia0", "/dev/kfd", "/dev/dxg"))
    return device == "cpu"


def _shares(siblings: Sequence[Planned], processes: int) -> Mapping[bool, int]:
    """Share the cores out: threads of one training, by whether it fills a row of scores.csv.

    Grid points run together, and so do the final trainings that come after them.
    """
    finals = sum(bool(planned.columns) for planned in siblings)
    together = {True: finals, False: len(siblings) - finals}
    return {final: threads_of_job(min(processes, jobs)) for final, jobs in together.items()}


def _perform(
    unit: Unit,
    place: Place,
    shares: Mapping[bool, int] | None = None,
    progress: Progress | None = None,
) -> Any:
    """Do one job, or a group of them; one whose weights could not be had says so again, as its own failure.

    A training on the CPU uses its share of the cores; without shares, what the worker has.
    """
    if isinstance(unit, ExtractionGroup):
        return extract_group(unit, place, progress)
    job = unit
    if isinstance(job, ExtractJob) and job.key is None:
        from stages.vision.fetch import fetch_weights

        fetch_weights(job.backbone)
    if isinstance(job, TrainJob) and _trains_on_cpu(job.recipe.device):
        threads = shares[bool(job.columns)] if shares else threads_of_worker()
        return perform(job, place, progress, threads=threads)
    return perform(job, place, progress)


def _failure(job: Job, error: BaseException, place: Place) -> Failure:
    """Record a failed attempt with its traceback, or end the run where the machine is to blame."""
    if isinstance(error, OSError) and error.errno in SURROUNDINGS:
        raise SurroundingsError(f"{job.name}: {one_line(error)}") from error
    log = place.output / "logs" / f"{file_stem(job.name)}.log"
    reason = one_line(error)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(_account(error), encoding="utf-8")
        record_failure(job, place, reason, log)
    except OSError as problem:
        raise SurroundingsError(f"{log}: a failure cannot be recorded ({problem})") from problem
    return Failure(job.name, reason, log)


def _account(error: BaseException) -> str:
    """Return the traceback of an error; of a worker that died, the last lines that its job printed."""
    if isinstance(error, WorkerDiedError):
        printed = error.tail or "nothing"
        return f"{error}\nthe last lines that the job printed:\n{printed}\n"
    return "".join(traceback.format_exception(error))


def one_line(error: BaseException) -> str:
    """Say an error in one line; its type where the message alone would not be understood."""
    text = " ".join(str(error).split()) or "no message"
    typed = type(error).__module__.startswith(("stages.", "pipeline.", "cache."))
    return text if typed else f"{type(error).__name__}: {text}"
