"""Running a study: plan, do what is missing or stale stage by stage, join.

Nothing here knows how a job is done (`pipeline.work`) or where (`pipeline.executors`); it decides what is
run when, what an error means, and what people are told.
"""

from __future__ import annotations

import errno
import functools
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cache import CacheWriteError
from pipeline.beforehand import check_choice, check_writable, job_pattern
from pipeline.config import Study
from pipeline.errors import StudyError, SurroundingsError
from pipeline.executors import run_jobs, worker_count
from pipeline.jobs import STAGES, ExtractJob, Job, Planned, ProbeJob, Stage, TrainJob
from pipeline.join import JoinOutcome, join, join_state
from pipeline.ledger import file_stem
from pipeline.place import Done, Place
from pipeline.plan import Plan, plan
from pipeline.plan_training import EVERY_POINT_DIVERGED
from pipeline.progress import SILENT, Reporter
from pipeline.resolve import cache_root
from pipeline.weights import prepare_weights
from pipeline.work import perform, record_failure
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


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    study: Study
    done: tuple[str, ...] = ()
    """Jobs that were run and finished."""
    failed: tuple[Failure, ...] = ()
    waiting: tuple[Planned, ...] = ()
    """Jobs that could not be run because others are missing."""
    warnings: tuple[str, ...] = ()
    joined: JoinOutcome | None = None
    """Table, statistics and files, where the join was asked for."""
    notes: tuple[str, ...] = field(default=())

    @property
    def nothing_to_do(self) -> bool:
        """Whether everything was there already."""
        return not self.done and not self.failed and not (self.joined and self.joined.written)


def run(
    study: Study,
    stages: Sequence[Stage] = STAGES,
    *,
    only: str | None = None,
    workers: int | None = None,
    root: Path | None = None,
    rehash: bool = False,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Do what is missing or stale of a study.

    Parameters
    ----------
    study : Study
        From `pipeline.config.load_study`.
    stages : sequence of {"extract", "probe", "fine-tune", "scratch", "join"}
        Which stages; they run in this order whatever order is given.
    only : str, optional
        Regular expression searched in job names; other jobs are left alone.
    workers : int, optional
        Processes for probes; default one a core. Forward passes and training use all cores by themselves.
    root : Path, optional
        The cache's root; default $PENULTIMATE_CACHE, else ~/.cache/penultimate.
    rehash : bool
        Hash every image again instead of trusting path, size, time and inode.
    reporter : Reporter
        Default silent.

    Returns
    -------
    Outcome
        A job that failed is in ``failed`` and in the ledger; the others are done.

    Raises
    ------
    StudyError
        The study or its data are wrong; nothing was started.
    SurroundingsError
        The machine said no; what was finished is kept, run again to go on.

    Examples
    --------
    >>> from pipeline.config import load_study
    >>> outcome = run(load_study("study.toml"), stages=("extract", "probe", "join"))  # doctest: +SKIP
    >>> print(outcome.joined.table.cells)  # doctest: +SKIP
    """
    asked = tuple(stage for stage in STAGES if stage in stages)
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise StudyError(f"no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    pattern = job_pattern(only)
    root = root or cache_root()
    replan = functools.partial(_plan, study, asked, root, reporter)
    current = replan(rehash=rehash)
    if "extract" in asked or "fine-tune" in asked:
        built = prepare_weights(current, reporter)
        replan = functools.partial(replan, weights_sha256=built)
        current = replan()
    for note in current.notes:
        reporter.say(f"note: {note}")
    check_choice(current, asked, only)
    place = Place(root, study.output)
    check_writable(place)
    done: list[str] = []
    failed: list[Failure] = []
    warnings: list[str] = []
    for stage in asked:
        if stage == "join":
            continue
        while True:
            tried = {*done, *(failure.job for failure in failed)}
            todo = [p for p in current.to_run(stage) if pattern.search(p.name) and p.name not in tried]
            if not todo:
                break
            _run_stage(stage, todo, place, workers, reporter, done, failed, warnings)
            current = replan()
    joined = None
    if "join" in asked:
        state, why = join_state(current)
        if state != "done":
            reporter.say(f"join: {why}")
        joined = join(current, reporter=reporter)
    waiting = tuple(
        p
        for p in current.jobs
        if p.stage in asked
        and p.state == "waiting"
        and p.why != EVERY_POINT_DIVERGED
        and pattern.search(p.name)
    )
    return Outcome(study, tuple(done), tuple(failed), waiting, tuple(warnings), joined, current.notes)


def _plan(
    study: Study,
    asked: tuple[Stage, ...],
    root: Path,
    reporter: Reporter,
    *,
    rehash: bool = False,
    weights_sha256: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Plan with a bar for the hashing."""
    try:
        with reporter.bar("hashing images", "images") as progress:
            return plan(
                study,
                stages=asked,
                root=root,
                rehash=rehash,
                weights_sha256=weights_sha256,
                progress=progress,
            )
    except CacheWriteError as error:
        raise SurroundingsError(str(error)) from error
    except OSError as error:
        raise SurroundingsError(f"{error.filename}: {error.strerror}; mend it and run again") from error


def _run_stage(
    stage: Stage,
    todo: Sequence[Planned],
    place: Place,
    workers: int | None,
    reporter: Reporter,
    done: list[str],
    failed: list[Failure],
    warnings: list[str],
) -> None:
    """Run the jobs of one stage that are ready, and keep the books."""
    for planned in todo:
        if planned.state == "stale":
            reporter.say(f"{planned.name}: {planned.why}")
    jobs = [planned.job for planned in todo if planned.job is not None]
    processes = worker_count(workers) if _side_by_side(jobs) else 1
    with reporter.bar(stage, "jobs") as progress:
        finished = 0

        def inside(part: int, total: int, note: str) -> None:
            """Show how far the running job is: by its name and its own count."""
            progress(finished, len(jobs), f"{note} {part}/{total}".strip())

        function = functools.partial(_perform, place=place)
        if processes == 1 or len(jobs) == 1:
            function = functools.partial(_perform, place=place, progress=inside)
        progress(0, len(jobs), "")
        for job, outcome in run_jobs(function, jobs, workers=processes):
            finished += 1
            progress(finished, len(jobs), job.name)
            if isinstance(outcome, Done):
                done.append(job.name)
                reporter.say(f"{job.name}: {outcome.line}")
                for warning in outcome.warnings:
                    warnings.append(f"{job.name}: {warning}")
                    reporter.say(f"{job.name}: warning: {warning}")
            else:
                failed.append(_failure(job, outcome, place))
                reporter.complain(f"{job.name}: failed: {failed[-1].reason}")


def _side_by_side(jobs: Sequence[Job]) -> bool:
    """Whether jobs of a stage are run in several processes.

    Probes and small trainings on CPU do not fill the cores by themselves: on two cores two jobs of one
    thread each get twice as far as one after the other with two threads. A GPU and a stage-one pass are
    kept busy by one job.
    """
    return all(
        isinstance(job, ProbeJob) or (isinstance(job, TrainJob) and _trains_on_cpu(job.recipe.device))
        for job in jobs
    )


def _trains_on_cpu(device: str) -> bool:
    """Whether a training job will run on the CPU, told without loading torch."""
    if device == "auto":
        return not any(Path(node).exists() for node in ("/dev/nvidia0", "/dev/kfd", "/dev/dxg"))
    return device == "cpu"


def _perform(job: Job, place: Place, progress: Progress | None = None) -> Done:
    """Do one job; one whose weights could not be had says so again, as its own failure."""
    if isinstance(job, ExtractJob) and job.key is None:
        from stages.vision.fetch import fetch_weights

        fetch_weights(job.backbone)
    return perform(job, place, progress)


def _failure(job: Job, error: BaseException, place: Place) -> Failure:
    """Record a failed attempt with its traceback, or end the run where the machine is to blame."""
    if isinstance(error, OSError) and error.errno in SURROUNDINGS:
        raise SurroundingsError(f"{job.name}: {one_line(error)}") from error
    log = place.output / "logs" / f"{file_stem(job.name)}.log"
    reason = one_line(error)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        record_failure(job, place, reason, log)
    except OSError as problem:
        raise SurroundingsError(f"{log}: a failure cannot be recorded ({problem})") from problem
    return Failure(job.name, reason, log)


def one_line(error: BaseException) -> str:
    """Say an error in one line; its type where the message alone would not be understood."""
    text = " ".join(str(error).split()) or "no message"
    typed = type(error).__module__.startswith(("stages.", "pipeline.", "cache."))
    return text if typed else f"{type(error).__name__}: {text}"
