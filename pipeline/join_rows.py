"""The rows of a study's scores: what the ledger holds of every planned job, and what others measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import StudyError
from pipeline.evidence import Rows, label, readable
from pipeline.foreign import foreign_rows
from pipeline.jobs import Planned, TrainJob
from pipeline.ledger import History, Record
from pipeline.plan import Plan
from pipeline.training_search import EVERY_POINT_DIVERGED
from pipeline.work_train import AGAIN
from stages.records import Metric, Score

if TYPE_CHECKING:
    from pipeline.findings import PartRow


def score_rows(plan: Plan) -> Rows:
    """Return one row for every planned score."""
    history = plan.history
    planned = [job for job in plan.jobs if job.columns and job.part is None]
    foreign = foreign_rows(plan)
    metrics = {name: images.dataset.metric for name, images in plan.resolved.images.items()}
    for job in planned:  # of a data set whose images are not here, results know the metric
        if job.state == "done":
            record = _counted(job, history)
            with readable(record):
                metrics.setdefault(record.columns["dataset"], record.columns["metric"])
    metrics = {**{score.dataset: score.metric for score, _ in foreign}, **metrics}
    return [_row(job, history, metrics.get(job.columns["dataset"], "top_1")) for job in planned] + foreign


def part_rows(plan: Plan, counts: Mapping[str, Sequence[int]]) -> list[PartRow]:
    """Return one row for every planned score of the other experiments."""
    from pipeline.findings import part_row

    history = plan.history
    found: list[PartRow] = []
    metrics = {name: images.dataset.metric for name, images in plan.resolved.images.items()}
    for planned in plan.jobs:
        if planned.part is not None and planned.columns:
            dataset = planned.columns["dataset"]
            score, record = _row(planned, history, metrics.get(dataset, "top_1"))
            found.append(part_row(planned.part, score, record, counts.get(dataset)))
    return found


def refuse_contradictions(plan: Plan) -> None:
    """Refuse two whole attempts at one job, made from the same, whose results differ."""
    from stages.report.checks import merged

    history = plan.history
    for planned in plan.jobs:
        if not planned.columns or planned.state != "done":
            continue
        counted = _counted(planned, history)
        for other in history.every:
            if other.job == planned.name and other.path != counted.path and _is_rival(other, counted):
                rows = [_score(r.columns, "top_1", r.status, r, planned.name) for r in (other, counted)]
                merged(*rows)


def selection_notes(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return what the choice of each final training's grid point wants a reader to know, by job.

    It belongs to the grid as it is now: a final training stays the same when its grid is widened.
    """
    return {p.name: p.job.notes for p in plan.jobs if p.columns and isinstance(p.job, TrainJob)}


def open_reasons(plan: Plan) -> dict[str, str]:
    """Return why each planned score that is not there is not there, by job: "not run yet", what changed since."""
    return {job.name: job.why for job in plan.jobs if job.columns and job.state != "done"}


def cell_of(score: Score) -> tuple[str, str, Any, int | None]:
    """Name the cell of a row as the join does."""
    return label(score), score.dataset, score.regime, score.seed


def test_counts(plan: Plan, rows: Rows) -> dict[str, list[int]]:
    """Count the test rows (multi-label: positives) of each class, where they are known."""
    counts = {
        name: _count_labels(images.dataset.splits["test"].labels, len(images.dataset.class_names))
        for name, images in plan.resolved.images.items()
    }
    for score, record in rows:
        if score.dataset not in counts and record is not None and record.status == "complete":
            with suppress(StudyError), readable(record):  # lost arrays are told by the tests of every two
                labels = record.arrays()["labels"]
                classes = len(record.result["class_names"])
                counts[score.dataset] = _count_labels(labels, classes)
    return counts


def _is_rival(other: Record, counted: Record) -> bool:
    """Whether another attempt could stand in the counted one's place: complete, whole, from the same spec."""
    return (
        other.status == counted.status == "complete"
        and other.spec_digest == counted.spec_digest
        and AGAIN not in counted.provenance
        and all(other.path.with_suffix(suffix).is_file() for suffix in other.files)
    )


def _counted(planned: Planned, history: History) -> Record:
    """Return the result of a job that is done."""
    record = history.result_of(planned.name, planned.spec_digest)
    assert record is not None, "the states of a plan are told from its history"
    return record


def _row(planned: Planned, history: History, metric: Metric) -> tuple[Score, Record | None]:
    """Return the row of one job: its result where that is current, else what became of it.

    That of a training counts without the weights that the study wants kept, too; a probe's that was made from
    other values than the pinned ones does not.
    """
    digest = planned.spec_digest
    trained = isinstance(planned.job, TrainJob) and history.result_of(planned.name, digest) is not None
    if planned.state == "done" or trained:
        record = _counted(planned, history)
        return _score(record.columns, metric, record.status, record, planned.name), record
    failure = history.failed.get(planned.name)
    if failure is not None and failure.spec_digest == digest:
        return _score(planned.columns, metric, "failed", failure, planned.name), failure
    status = "diverged" if planned.why == EVERY_POINT_DIVERGED else "missing"
    return _score(planned.columns, metric, status, None, planned.name), None


def _score(columns: Mapping[str, Any], metric: Metric, status: str, record: Record | None, job: str) -> Score:
    """Make a row; what the job does not know stays empty."""
    known = {"metric": metric, **columns}
    row = {name: known.get(name) for name in Score.__dataclass_fields__}
    source = f"results/{record.path.parent.name}/{record.path.name}" if record else ""
    return Score(**{**row, "status": status, "source": source, "job": job})  # type: ignore[arg-type]


def _count_labels(labels: np.ndarray[Any, Any], classes: int) -> list[int]:
    """Count rows per class, or positives per label."""
    if labels.ndim == 2:
        return [int(v) for v in (labels == 1).sum(axis=0)]
    return [int(v) for v in np.bincount(labels, minlength=classes)]
