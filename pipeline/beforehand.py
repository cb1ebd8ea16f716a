"""What is checked before any job is started: the choice of jobs, and whether results can be kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.errors import StudyError, SurroundingsError
from pipeline.jobs import ExtractJob, Job, Stage, TrainJob
from pipeline.place import Place
from pipeline.plan import Plan
from stages.errors import InputError
from stages.records import GPU_PRECISIONS

WRITE_CACHE: tuple[Stage, ...] = ("extract", "fine-tune", "scratch")
"""Stages that keep something in the cache: features, decoded images."""


def check_choice(plan: Plan, asked: Sequence[Stage], only: str | None) -> None:
    """Refuse a choice of jobs that names none."""
    for stage, table in (("fine-tune", "fine_tune"), ("scratch", "from_scratch")):
        if tuple(asked) == (stage,) and plan.study.training(table) is None:
            raise StudyError(f"the study has no [{table}] table; add one (budget = 'quick' will do)")
    names = [job.name for job in plan.jobs if job.stage in asked]
    if only is not None and names and not any(job_pattern(only).search(name) for name in names):
        raise StudyError(f"--only {only!r} matches none of {len(names)} jobs, such as {names[0]}")


def check_pins(plan: Plan, asked: Sequence[Stage] = ()) -> None:
    """Refuse a study whose pins cannot be kept on this machine, unless it is only extracted."""
    if plan.conflicts and not passed_over(plan, asked):
        raise StudyError(plan.conflicts)


def passed_over(plan: Plan, asked: Sequence[Stage]) -> tuple[str, ...]:
    """Return the conflicts that do not count: extraction alone makes what a lock can pin next."""
    return plan.conflicts if tuple(asked) == ("extract",) else ()


def notes_about(plan: Plan, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return the notes without those on data sets that no job of --only is about; the report has them all."""
    names = [job.name for job in plan.jobs if pattern.search(job.name)]
    sets = (*plan.resolved.images, *plan.resolved.absent)
    others = [name for name in sets if not any(f"/{name}" in job for job in names)]
    return tuple(n for n in plan.notes if not any(n.startswith(f"{name}: ") for name in others))


def job_pattern(only: str | None) -> re.Pattern[str]:
    """Compile --only, or say what is wrong with it."""
    try:
        return re.compile(only or "")
    except re.error as error:
        raise StudyError(f"--only {only!r} is not a regular expression: {error}") from error


def check_devices(jobs: Iterable[Job]) -> None:
    """Refuse jobs on this machine that its devices cannot do; torch is loaded for words in doubt alone."""
    asked: set[tuple[str, str, str]] = set()
    for job in jobs:
        if isinstance(job, TrainJob):
            asked.add((job.recipe.device, job.recipe.precision, job.regime))
        elif isinstance(job, ExtractJob):
            asked.add((job.device, job.precision, "extract"))
    doubtful = [w for w in sorted(asked) if w[0] not in ("auto", "cpu") or w[1] in GPU_PRECISIONS]
    if not doubtful:
        return
    try:
        from stages.vision.devices import check_precision, choose_device
    except ImportError:
        return  # every job says which extra is missing
    mistakes = []
    for device, precision, regime in doubtful:
        try:
            check_precision(precision, choose_device(device))
        except InputError as error:
            mistakes.append(f"{regime}: {error}")
    if mistakes:
        raise StudyError(mistakes)


def check_writable(plan: Plan, asked: Sequence[Stage], place: Place) -> None:
    """Find out before any work whether results can be kept; the cache is only written where features are made."""
    places = {place.output: "the study's output"}
    if any(p.stage in asked and p.stage in WRITE_CACHE and p.state != "done" for p in plan.jobs):
        places[place.root] = "the cache ($PENULTIMATE_CACHE)"
    for folder, what in places.items():
        probe = folder / ".writable"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise SurroundingsError(
                f"{folder}: {what} cannot be written ({error.strerror}); mend it or choose another folder"
            ) from error
