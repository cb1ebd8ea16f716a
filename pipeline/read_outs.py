"""The cheap read-outs and transferability scores of a study's cached features, kept in its ledger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache import sha256_of
from pipeline.cached_tables import CachedTables
from pipeline.jobs import ProbeJob
from pipeline.ledger import History, Ledger, Record
from pipeline.progress import SILENT, Reporter
from pipeline.provenance import provenance
from pipeline.source_classes import SourceClasses
from stages.analysis.readouts import read_out, together
from stages.analysis.transfer_scores import transferability
from stages.errors import InputError
from stages.records import Metric

RECIPE = 1
"""Grows when the same features would give other scores."""
FOLDER = "read_outs"


def compute_read_outs(
    tables: CachedTables,
    *,
    backbones: Sequence[str] = (),
    datasets: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compute what is missing or stale, and return all.

    Parameters
    ----------
    tables : CachedTables
    backbones, datasets : sequence of str
        Which; default all of the study.
    reporter : Reporter

    Returns
    -------
    rows : list of dict
        One row for each backbone and data set: the read-outs' scores on test (fractions), then the
        transferability scores of the training rows; None where one is not defined.
    problems : list of str
        One line for each cell that has none, because nothing can be fitted to its features.
    """
    cells = [(b, d) for d in tables.datasets(datasets) for b in tables.backbones(backbones)]
    for backbone, dataset in cells:
        tables.entries(backbone, dataset)  # what is not cached is told before anything is computed
    ledger = Ledger(tables.study.output)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    sources = SourceClasses({backbone.label: backbone for backbone in tables.plan.resolved.backbones})
    history = ledger.history()
    with reporter.bar("read-outs", "cells") as progress:
        for done, (backbone, dataset) in enumerate(cells, start=1):
            job = tables.jobs[backbone, dataset]
            record = current_record(history, job)
            try:
                if record is None or _wants_source_classes(record, sources, job):
                    record = _compute(tables, ledger, job, sources)
                rows.append({"backbone": backbone, "dataset": dataset, **scores_of(record)})
            except InputError as error:
                problems.append(f"{backbone} on {dataset}: {error}")
            progress(done, len(cells), f"{backbone} on {dataset}")
    return rows, problems


def current_record(history: History, job: ProbeJob) -> Record | None:
    """Return the read-outs made from the features that a probe is fitted to, None where there are none."""
    return history.result_of(_name(job), sha256_of(_spec(job)))


def scores_of(record: Record) -> dict[str, float | None]:
    """Return every score by name."""
    return {name: entry["value"] for name, entry in record.result["scores"].items()}


def _wants_source_classes(record: Record, sources: SourceClasses, job: ProbeJob) -> bool:
    """Whether scores that were computed without the weights can be had whole now."""
    return not record.result.get("source_classes", False) and sources.at_hand(job.backbone)


def _name(job: ProbeJob) -> str:
    """Return the job's name."""
    return f"read-outs/{job.backbone}/{job.dataset}"


def _spec(job: ProbeJob) -> dict[str, Any]:
    """Return all that decides the scores."""
    return {"recipe": RECIPE, "features": dict(job.entries), "metric": job.metric}


def _compute(tables: CachedTables, ledger: Ledger, job: ProbeJob, sources: SourceClasses) -> Record:
    """Compute the scores of one backbone on one data set."""
    train = tables.table(job.backbone, job.dataset, "train")
    if "validation" in job.entries:
        train = together(train, tables.table(job.backbone, job.dataset, "validation"))
    test = tables.table(job.backbone, job.dataset, "test")
    metric: Metric = job.metric or ("map_11_point" if test.multi_label else "top_1")
    scores = dict(_scores(train, test, metric, *sources.probabilities(job.backbone, train.features)))
    return ledger.write(
        FOLDER,
        _name(job),
        status="complete",
        spec=_spec(job),
        columns={},
        result={
            "metric": metric,
            "n_train": len(train.ids),
            "n_test": len(test.ids),
            "scores": scores,
            "source_classes": sources.at_hand(job.backbone),
        },
        provenance=provenance(),
    )


def _scores(
    train: Any, test: Any, metric: Metric, source_probabilities: Any, why_none: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every score with what must be known of it."""
    for found in read_out(train, test, metric):
        about = {"settings": dict(found.settings), "selection": found.selection_method}
        yield (
            found.name,
            {"value": found.value, **about, "seconds": found.seconds, "warnings": list(found.warnings)},
        )
    for score in transferability(train, source_probabilities, why_none=why_none):
        value = score.value if score.value is not None and math.isfinite(score.value) else None
        about = {"reason": score.reason, "details": dict(score.details)}
        yield score.name, {"value": value, **about, "seconds": score.seconds}
