"""Planning of the experiment with few examples: every regime of the study on small subsets of train.

Nothing is extracted again: the probes take rows of the cached features. A data set whose images are not on this
machine is drawn from the ids and labels of its cached entries, which gives the same subsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cache import Store, sha256_of
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.jobs import Part, Planned, ProbeJob, ProbeRows
from pipeline.ledger import History
from pipeline.plan_training import plan_cell, plan_without_images
from pipeline.resolve import Images, Resolved, with_network
from pipeline.states import state_of
from pipeline.subsets import SmallSet, rows_of_entries, small_sets
from pipeline.tables_experiments import FewExamplesTable
from stages.records import Regime

FEW_RECIPE = 1
"""Grows when the same rows and settings would give another probe."""
TRAININGS: tuple[Regime, ...] = ("fine_tune", "from_scratch")


def plan_few_examples(
    study: Study,
    table: FewExamplesTable,
    resolved: Resolved,
    probes: Sequence[Planned],
    store: Store,
    history: History,
) -> Iterator[Planned]:
    """Plan the probes and trainings of every subset.

    Parameters
    ----------
    resolved : Resolved
        Without the images that cannot be read.
    probes : sequence of Planned
        The study's own: they know the cached entries.

    Raises
    ------
    StudyError
        One line for each data set that has too few examples, or several labels an image.
    """
    drawn = _drawn(study, table, resolved, probes, store)
    for dataset, sets in drawn.items():
        for small in sets:
            part = Part("few_examples", per_class=small.per_class, repeat=small.repeat)
            jobs = [
                *_probes(study, dataset, small, probes, history),
                *_trainings(study, dataset, small, resolved, history),
            ]
            yield from (replace(job, part=part) for job in jobs)


def _drawn(
    study: Study, table: FewExamplesTable, resolved: Resolved, probes: Sequence[Planned], store: Store
) -> dict[str, list[SmallSet]]:
    """Draw the subsets of every data set that rows are known of; all mistakes are told at once."""
    drawn: dict[str, list[SmallSet]] = {}
    mistakes: list[str] = []
    for entry in study.dataset:
        if table.datasets is not None and entry.name not in table.datasets:
            continue
        images = resolved.images.get(entry.name) or _cached_rows(entry.name, probes, store)
        if images is None or (images.dataset.multi_label and table.datasets is None):
            continue
        try:
            drawn[entry.name] = small_sets(table, images)
        except StudyError as error:
            mistakes += error.mistakes
    if mistakes:
        raise StudyError(mistakes)
    return drawn


def _cached_rows(dataset: str, probes: Sequence[Planned], store: Store) -> Images | None:
    """Return the rows of a data set from the entries of a probe that is planned on it."""
    for planned in probes:
        job = planned.job
        if isinstance(job, ProbeJob) and job.dataset == dataset and job.metric is not None:
            entries = {split: store.sound(key) for split, key in job.entries.items()}
            found = {split: entry for split, entry in entries.items() if entry is not None}
            if len(found) == len(entries):
                return rows_of_entries(dataset, job.metric, found)
    return None


def _probes(
    study: Study, dataset: str, small: SmallSet, probes: Sequence[Planned], history: History
) -> Iterator[Planned]:
    """Plan one probe for each of the study's own on this data set."""
    for whole in probes:
        if whole.columns["dataset"] != dataset:
            continue
        name = f"{whole.name}{small.suffix}"
        if not isinstance(whole.job, ProbeJob):
            yield Planned(name, "probe", "waiting", whole.why, columns=whole.columns)
            continue
        job = _probe(study, name, whole.job, small)
        state, why = state_of(job, history)
        yield Planned(name, "probe", state, why, job, job.columns)


def _probe(study: Study, name: str, whole: ProbeJob, small: SmallSet) -> ProbeJob:
    """Turn the study's own probe into one of a subset: chosen on validation, fitted to the subset alone."""
    splits = small.images.dataset.splits
    rows = ProbeRows(splits["train"].ids, splits["validation"].ids)
    settings: Mapping[str, Any] = {
        "lambdas": whole.settings["lambdas"],
        "tolerance": whole.settings["tolerance"],
        "selection": "validation",
        "refit": "train",
    }
    spec = {
        **whole.spec,
        "few_examples": FEW_RECIPE,
        "probe": {**settings, "lambdas": study.probe.lambdas.model_dump()},
        "rows": {"train": sha256_of(list(rows.train)), "validation": sha256_of(list(rows.validation))},
    }
    return replace(whole, name=name, settings=settings, spec=spec, rows=rows, known=None)


def _trainings(
    study: Study, dataset: str, small: SmallSet, resolved: Resolved, history: History
) -> Iterator[Planned]:
    """Plan the trainings of every regime on one subset."""
    for regime in TRAININGS:
        table = study.training(regime)
        if table is None:
            continue
        for backbone in with_network(resolved):
            if dataset in resolved.images:
                yield from plan_cell(
                    study, regime, table, backbone, small.images, history, suffix=small.suffix, refit=False
                )
            else:
                yield from plan_without_images(
                    study, regime, table, backbone, dataset, resolved, history, suffix=small.suffix
                )
