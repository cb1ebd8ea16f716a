"""A study's jobs on other machines: what they need there, and how a stage hands them to an executor."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Study
from pipeline.executors import Outcome
from pipeline.extraction_groups import ExtractionGroup, Unit, each_job, plan_units
from pipeline.fitness import needs_of_run
from pipeline.job_output import SUFFIX
from pipeline.jobs import ExtractJob, Job, ProbeJob, TrainJob
from pipeline.ledger import file_stem
from pipeline.place import Place
from pipeline.progress import Reporter
from pipeline.remote import Remote, Terms, executor_of
from stages.records import GPU_PRECISIONS, Backbone, Split

_MOST_FOLDERS = 1000
"""Of a split that are looked at on every worker."""


@dataclass(frozen=True)
class Elsewhere:
    """An executor of other machines, and what it is told of a study's jobs."""

    remote: Remote
    terms: Terms

    def outcomes(
        self, function: Callable[[Unit], Any], jobs: Sequence[Job], place: Place, tell: Callable[[str], None]
    ) -> Iterator[tuple[Job, Outcome]]:
        """Run jobs, extractions that want the same pixels together; yield every job with its own outcome."""
        output_of = functools.partial(output_file, place=place)
        terms = Terms(self.terms.needs, wants_gpu, output_of, resumes, tell, self.terms.say)
        return each_job(self.remote.run(function, plan_units(jobs, self.remote.free_bytes), terms))


@contextlib.contextmanager
def elsewhere_of(
    study: Study, jobs: Sequence[Job], place: Place, reporter: Reporter
) -> Iterator[Elsewhere | None]:
    """Reach the executor that a study names and find out whether the jobs can be run there.

    Parameters
    ----------
    study : Study
    jobs : sequence of Job
        That may be run; without any, nobody is reached.
    place : Place
    reporter : Reporter

    Yields
    ------
    Elsewhere or None
        None = in processes of this machine.

    Raises
    ------
    SurroundingsError
        The executor cannot be reached, or its workers are not fit for the jobs; one line each.
    """
    if not jobs or study.execution.executor == "local":
        yield None
        return
    making = any(not isinstance(job, ProbeJob) for job in jobs)
    folders = [place.root, place.output]
    there = [*folders, *sorted(files_of(jobs))]
    with (
        executor_of(study) as remote,
        needs_of_run(there, folders if making else folders[1:], folders) as needs,
    ):
        assert remote is not None
        found = Elsewhere(remote, Terms(needs, wants_gpu, say=reporter.say))
        remote.check(jobs, found.terms)
        yield found


def files_of(jobs: Iterable[Job]) -> set[Path]:
    """Return the files that tell whether a machine sees what jobs read: weights, and an image of each folder."""
    found: set[Path] = set()
    for job in jobs:
        if isinstance(job, ExtractJob):
            found.update(_files(job.backbone, [job.split]))
        elif isinstance(job, TrainJob):
            found.update(_files(job.backbone, job.dataset.splits.values()))
    return found


def _files(backbone: Backbone, splits: Iterable[Split]) -> Iterator[Path]:
    """Yield what there is of them."""
    if backbone.weights.path is not None:
        yield backbone.weights.path.absolute()
    for split in splits:
        one_each = {path.parent: path for path in reversed(split.paths)}
        yield from (path.absolute() for path in itertools.islice(one_each.values(), _MOST_FOLDERS))


def wants_gpu(unit: Unit | ExtractJob) -> bool | None:
    """Whether a job needs a GPU: True, False, or None for "where there is one"."""
    if isinstance(unit, ProbeJob):
        return False
    job = unit.jobs[0] if isinstance(unit, ExtractionGroup) else unit
    recipe = job.recipe if isinstance(job, TrainJob) else job
    device = recipe.device
    if device == "auto" and recipe.precision in GPU_PRECISIONS:
        return True
    return None if device == "auto" else device != "cpu"


def resumes(unit: Unit) -> bool:
    """Whether a job that is broken off goes on where it stopped."""
    return not isinstance(unit, ProbeJob)


def output_file(unit: Unit, place: Place) -> Path:
    """Return where what a job prints is kept while it runs in a process of its own."""
    return place.output / "logs" / f"{file_stem(unit.name)}{SUFFIX}"
