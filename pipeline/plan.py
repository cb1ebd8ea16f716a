"""The plan: which jobs a study consists of, which of them are done, and why the others are not.

Planning reads (tables, hashes, the cache's listing, the ledger) and decides; it changes no result, runs no
network and imports no torch. Running is another module's.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from cache import Store
from cache.locks import silent
from pipeline.choices import AmbiguousEntriesError
from pipeline.config import Study
from pipeline.duplicates import twin_notes
from pipeline.errors import StudyError
from pipeline.garbage import uncollected
from pipeline.jobs import STAGES, ExtractJob, Planned, Stage
from pipeline.ledger import History, Ledger
from pipeline.needed import needs_in
from pipeline.plan_experiments import plan_experiments
from pipeline.plan_probes import plan_probes
from pipeline.plan_training import plan_regime, unhalved
from pipeline.resolve import CACHED_ONLY, Resolved, without
from pipeline.survey import Survey, survey
from stages.records import Progress


@dataclass(frozen=True)
class Plan:
    """Every job of a study with its state, in the order in which stages run."""

    study: Study
    jobs: tuple[Planned, ...]
    resolved: Resolved
    notes: tuple[str, ...]
    """What a reader must know of the data sets as they were read, on whatever machine, and of lost results."""
    absent: tuple[str, ...]
    """Data sets whose images are not on this machine, and why, one line each."""
    conflicts: tuple[str, ...]
    """What stands between the study's pins and this machine, one line each."""
    history: History
    """The results that the states were told from."""

    def of(self, stage: Stage) -> tuple[Planned, ...]:
        """Return the jobs of one stage."""
        return tuple(job for job in self.jobs if job.stage == stage)

    def to_run(self, stage: Stage) -> tuple[Planned, ...]:
        """Return the jobs of one stage that can be run now."""
        return tuple(p for p in self.of(stage) if p.state in ("missing", "stale") and p.job is not None)


@uncollected()
def plan(
    study: Study,
    *,
    stages: tuple[Stage, ...] = STAGES,
    root: Path | None = None,
    rehash: bool = False,
    weights_sha256: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
    notify: Callable[[str], None] = silent,
) -> Plan:
    """Compare what a study asks for with what is there.

    Parameters
    ----------
    study : Study
        From `pipeline.config.load_study`.
    stages : tuple of str
        The stages that shall be run. Where they need no images (probe, join), a data set whose images are
        not on this machine is planned from its cached features, found by name.
    root : Path, optional
        The cache's root; default $PENULTIMATE_CACHE, else ~/.cache/penultimate.
    rehash : bool
        Hash every image again.
    weights_sha256 : mapping of str to str, optional
        Hashes of weights that only running code can tell, by backbone label.
    progress : Progress, optional
        Told about hashing, the one slow part.
    notify : callable, optional
        Gets one line for each cached entry that is found damaged, and set aside, on the way.

    Returns
    -------
    Plan

    Raises
    ------
    StudyError
        With one line per mistake in data sets and backbones.
    AmbiguousEntriesError
        Several cached entries match, and neither images nor pins tell which is meant.

    Examples
    --------
    >>> from pipeline.config import Study
    >>> backbone = {"name": "resnet18", "weights": "random"}
    >>> study = Study.model_validate(
    ...     {"study": {"name": "s", "output": str(getfixture("tmp_path") / "out")},
    ...      "backbone": [backbone], "datasets": ["digits"]}
    ... )
    >>> [(job.name, job.state) for job in plan(study, root=getfixture("tmp_path")).jobs][:2]
    [('extract/resnet18/digits/train', 'missing'), ('extract/resnet18/digits/test', 'missing')]
    """
    need_images = any(stage in stages for stage in ("extract", "fine-tune", "scratch"))
    look = functools.partial(survey, study, root=root, rehash=rehash, progress=progress, notify=notify)
    try:
        found = look(need_images=need_images, weights_sha256=weights_sha256)
    except StudyError as error:
        raise StudyError([*error.mistakes, *_without_images(study, stages, look)]) from error
    resolved, store, history = found.resolved, found.shelf.store, Ledger(study.output).history()
    jobs = list(found.extraction)
    notes = [f"{name}: {note}" for name, images in resolved.images.items() for note in images.dataset.notes]
    notes += [note for name, images in resolved.images.items() for note in twin_notes(name, images)]
    notes += [*unhalved(study), *history.unreadable.values()]
    if study.probe.enabled:
        _refuse_doubt(study, found)
        jobs += plan_probes(study, resolved, found.located, store, history)
    readable = _readable(study, resolved, jobs, store)
    for regime in ("fine_tune", "from_scratch"):
        table = study.training(regime)
        if table is not None:
            jobs += plan_regime(study, regime, table, readable, history)
    jobs += plan_experiments(study, readable, jobs, store, history)
    absent = [
        f"{name}: images are not on this machine ({why}); cached features are found by name"
        + (", rows and labels" if name in resolved.listed else "")
        for name, why in resolved.absent.items()
        if why != CACHED_ONLY
    ]
    return Plan(
        study,
        tuple(jobs),
        resolved,
        tuple(notes),
        tuple(absent),
        found.conflict_lines,
        history,
    )


def _without_images(study: Study, stages: Sequence[Stage], look: Callable[[], Survey]) -> Iterator[str]:
    """Say what can be done though images or weights are absent, where nothing else is wrong."""
    if "probe" in stages:
        with contextlib.suppress(StudyError):
            needs = needs_in(study, look())
            if needs.entries and len(needs.keys) == len(needs.entries):
                file = study.file or "STUDY"
                yield (
                    f"all cached features of {study.name} are here, and need neither images nor weights: "
                    f"`penultimate probe {file}`, then `penultimate join {file}`"
                )


def _refuse_doubt(study: Study, found: Survey) -> None:
    """Refuse to guess where several entries match; all questions are put at once."""
    choices = [located.choice for located in found.located.values() if located.choice is not None]
    if choices:
        raise AmbiguousEntriesError(choices, study.file, found.conflict_lines)


def _readable(study: Study, resolved: Resolved, jobs: Sequence[Planned], store: Store) -> Resolved:
    """Leave the images out of training that extraction could not read, where the policy is to exclude.

    Which ones they are stands in the cached entries; until a data set has been extracted through one
    backbone at least, its training waits.
    """
    if study.extract.on_bad_image == "error" or not (
        study.fine_tune or study.from_scratch or study.few_examples
    ):
        return resolved
    excluded: dict[tuple[str, str], set[str]] = {}
    for planned in jobs:
        if isinstance(planned.job, ExtractJob) and planned.state == "done" and planned.job.key:
            place = planned.job.dataset, planned.job.split.name
            if place not in excluded:
                entry = store.sound(planned.job.key)
                if entry is not None:  # else it is damaged, and the next plan has it extracted again
                    excluded[place] = {id_ for id_, _ in entry.metadata["excluded"]}
    images, absent = {}, dict(resolved.absent)
    for name, all_images in resolved.images.items():
        if all((name, split) in excluded for split in all_images.dataset.splits):
            images[name] = without(all_images, {s: excluded[name, s] for s in all_images.dataset.splits})
        else:
            absent[name] = "which images cannot be read is known once its features are extracted"
    return replace(resolved, images=images, absent=absent)
