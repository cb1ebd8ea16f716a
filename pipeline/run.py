"""Running a study: plan, do what is missing or stale stage by stage, join.

Nothing here knows how a job is done (`pipeline.work`) or where (`pipeline.executors`); it decides what is
run when, what an error means, and what people are told.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cache import CacheReadError, CacheWriteError, KeyMissingError
from pipeline.beforehand import (
    check_choice,
    check_devices,
    check_pins,
    check_writable,
    job_pattern,
    notes_about,
    passed_over,
)
from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study
from pipeline.elsewhere import elsewhere_of
from pipeline.errors import StudyError, SurroundingsError
from pipeline.jobs import STAGES, ExtractJob, Job, Planned, Stage
from pipeline.join import JoinOutcome, join
from pipeline.join_stamp import join_state
from pipeline.place import Place
from pipeline.plan import Plan, plan
from pipeline.progress import SILENT, Reporter
from pipeline.stage_run import Books, Failure, loss, run_stage
from pipeline.training_search import EVERY_POINT_DIVERGED
from pipeline.weights import prepare_weights


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
    agree: Callable[[Plan, bool], None] | None = None,
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
        Processes for probes; default one a core. Forward passes and training use all cores by themselves. Of the
        executor "local" only: elsewhere the workers that are there count (`pipeline.remote`).
    root : Path, optional
        The cache's root; default $PENULTIMATE_CACHE, else ~/.cache/penultimate.
    rehash : bool
        Hash every image again instead of trusting path, size, time and inode.
    reporter : Reporter
        Default silent.
    agree : callable, optional
        Called with the plan before anything is started, first before weights are fetched and then, with
        True, once they are there; it raises where the work is not wanted (`pipeline.consent`).

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
    replan = functools.partial(_plan, study, asked, root, reporter, functools.cache(reporter.say))
    current = replan(rehash=rehash)
    if "extract" in asked or "fine-tune" in asked:
        if agree is not None:
            agree(current, False)
        built = prepare_weights(current, reporter)
        replan = functools.partial(replan, weights_sha256=built)
        current = replan()
    for note in (*notes_about(current, pattern), *current.absent, *passed_over(current, asked)):
        reporter.say(f"note: {note}")
    check_choice(current, asked, only)
    check_pins(current, asked)
    if study.execution.executor == "local":
        check_devices(_ready(current, asked, pattern))
    place = Place(root, study.output)
    check_writable(current, asked, place)
    if agree is not None:
        agree(current, True)
    books = Books()
    if "extract" in asked and _lost(_extracted(current, pattern), root, reporter):
        current = replan()
    with elsewhere_of(study, _ready(current, asked, pattern), place, reporter) as elsewhere:
        perform = functools.partial(
            run_stage,
            books=books,
            place=place,
            workers=workers,
            reporter=reporter,
            retries=study.execution.retries,
            elsewhere=elsewhere,
        )
        for stage in asked:
            if stage != "join":
                current = _do(stage, current, asked, pattern, books, perform, replan)
    joined = None
    if "join" in asked:
        state, why = join_state(current)
        if state != "done":
            reporter.say(f"join: {why}")
        joined = join(current, reporter=reporter)
    return Outcome(
        study=study,
        done=tuple(dict.fromkeys(books.done)),
        failed=tuple(books.failed),
        waiting=_waiting(current, asked, pattern, books),
        warnings=tuple(books.warnings),
        joined=joined,
        notes=(*current.notes, *current.absent),
    )


def _do(
    stage: Stage,
    current: Plan,
    asked: Sequence[Stage],
    pattern: re.Pattern[str],
    books: Books,
    perform: Callable[..., None],
    replan: Callable[[], Plan],
) -> Plan:
    """Run one stage until nothing of it is ready any more; return the plan that this leaves.

    Features that a probe found damaged or gone are extracted once more in between; every probe has two
    chances and every other job one, so this ends.
    """
    while True:
        tried = books.tried()
        todo = [p for p in current.to_run(stage) if pattern.search(p.name) and p.name not in tried]
        if not todo:
            return current
        remakable = _extracted(current, pattern).values() if "extract" in asked else ()
        bereft = len(books.bereft)
        perform(stage, todo, remakable=frozenset(remakable), siblings=current.of(stage))
        current = replan()
        if len(books.bereft) > bereft:
            failed = {failure.job for failure in books.failed}
            again = [p for p in current.to_run("extract") if pattern.search(p.name) and p.name not in failed]
            perform("extract", again)
            current = replan()


def _ready(current: Plan, asked: Sequence[Stage], pattern: re.Pattern[str]) -> list[Job]:
    """Return the jobs that can be run now; where there are none, none becomes ready later."""
    ready = [p for stage in asked for p in current.to_run(stage) if pattern.search(p.name)]
    return [p.job for p in ready if p.job is not None]


def _extracted(current: Plan, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the cached features that this run would extract were they not there: job to key."""
    return {
        p.name: p.job.key
        for p in current.of("extract")
        if p.state == "done" and pattern.search(p.name) and isinstance(p.job, ExtractJob) and p.job.key
    }


def _lost(extracted: Mapping[str, str], root: Path, reporter: Reporter) -> bool:
    """Look at every byte that was not looked at before; say what is damaged, and whether anything is.

    A damaged entry is set aside by this, so that the next plan extracts it before anything reads it.
    """
    store, lost = open_store(root), False
    with reporter.bar("verifying features", "entries") as progress:
        for done, (job, key) in enumerate(extracted.items(), start=1):
            try:
                store.read(key)
            except KeyMissingError as error:
                reporter.say(f"{job}: {loss(error)}: made again")
                lost = True
            except CacheReadError as error:
                raise SurroundingsError(str(error)) from error
            progress(done, len(extracted), job)
    return lost


def _waiting(
    current: Plan, asked: Sequence[Stage], pattern: re.Pattern[str], books: Books
) -> tuple[Planned, ...]:
    """Return the jobs asked for that others have to come before; failed ones are told elsewhere."""
    failed = {failure.job for failure in books.failed}
    return tuple(
        p
        for p in current.jobs
        if p.stage in asked
        and p.state == "waiting"
        and p.why != EVERY_POINT_DIVERGED
        and p.name not in failed
        and pattern.search(p.name)
    )


def _plan(
    study: Study,
    asked: tuple[Stage, ...],
    root: Path,
    reporter: Reporter,
    notify: Callable[[str], None],
    *,
    rehash: bool = False,
    weights_sha256: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Plan with a bar for the hashing."""
    try:
        with reporter.bar("reading images", "images") as progress:
            return plan(
                study,
                stages=asked,
                root=root,
                rehash=rehash,
                weights_sha256=weights_sha256,
                progress=progress,
                notify=notify,
            )
    except CacheWriteError as error:
        raise SurroundingsError(str(error)) from error
    except OSError as error:
        raise SurroundingsError(f"{error.filename}: {error.strerror}; mend it and run again") from error
