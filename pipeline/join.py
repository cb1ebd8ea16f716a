"""Stage three's end: the ledger's results become one table, statistics, figures and a report on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import sha256_of
from cache.atomic import make_folder, write_file
from pipeline.cell_details import cell_details
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.evidence import Rows, label, pair_tests, probe_paths, readable, training_curves
from pipeline.foreign import foreign_rows, published
from pipeline.jobs import Planned, State
from pipeline.kept_figures import kept, kept_digest
from pipeline.ledger import History, Ledger, Record
from pipeline.methods import methods
from pipeline.plan import Plan
from pipeline.plan_training import EVERY_POINT_DIVERGED
from pipeline.progress import SILENT, Reporter
from pipeline.provenance import provenance
from stages.records import Metric, Score

if TYPE_CHECKING:
    from pipeline.findings import PartRow
    from stages.report import TransferTable

JOIN_RECIPE = 3
"""Grows when the same results would be joined to other numbers or drawn otherwise."""
STAMP = "join.json"
"""Which results the files on disk were made from."""


@dataclass(frozen=True)
class JoinOutcome:
    """The joined study."""

    table: TransferTable
    statistics: Mapping[str, Any]
    files: tuple[Path, ...]
    """What lies on disk, the report first where there is one."""
    written: bool
    """False where everything on disk was current."""
    remarks: tuple[str, ...] = ()
    """What could not be made, and why."""
    findings: tuple[str, ...] = ()
    """What the other experiments found, in sentences."""


def join_state(plan: Plan) -> tuple[State, str]:
    """Compare what the files on disk were made from with what is in the ledger now."""
    stamp = _read_stamp(plan)
    if stamp is None:
        return "missing", "not joined yet"
    if stamp["made_from"] != _made_from(plan, _rows(plan)):
        return "stale", "results or report settings changed since the last join"
    lost = [name for name in stamp["files"] if not (plan.study.output / name).is_file()]
    return ("stale", f"{lost[0]} is gone") if lost else ("done", str(plan.study.output / stamp["files"][0]))


def join(plan: Plan, *, reporter: Reporter = SILENT) -> JoinOutcome:
    """Join a study's results and write scores, statistics, figures and report, where they are not current.

    Parameters
    ----------
    plan : Plan
        From `pipeline.plan.plan`; cells whose job is not done become missing or failed rows.
    reporter : Reporter
        Told about the figures, the slow part.

    Returns
    -------
    JoinOutcome
    """
    from stages.report import join_scores

    _refuse_contradictions(plan)
    rows = _rows(plan)
    table = join_scores(
        [score for score, _ in rows],
        expected=[_cell(score) for score, _ in rows],
        test_counts=_test_counts(plan, rows),
    )
    table = replace(table, notes=(*plan.notes, *table.notes))
    stamp, statistics = _read_stamp(plan), _read_statistics(plan)
    if stamp is not None and statistics is not None and join_state(plan)[0] == "done":
        files = tuple(plan.study.output / name for name in stamp["files"])
        told = tuple(stamp["remarks"]), tuple(stamp.get("findings", ()))
        return JoinOutcome(table, statistics, files, False, *told)
    return _write(plan, table, rows, reporter)


def _refuse_contradictions(plan: Plan) -> None:
    """Refuse two whole attempts at one job, made from the same, whose results differ."""
    from stages.report.checks import merged

    history = Ledger(plan.study.output).history()
    for planned in plan.jobs:
        counted = history.finished.get(planned.name)
        if counted is None or not planned.columns or planned.state != "done":
            continue
        for other in history.every:
            if other.job == planned.name and other.path != counted.path and _is_rival(other, counted):
                rows = [_score(r.columns, "top_1", r.status, r, planned.name) for r in (other, counted)]
                merged(*rows)


def _is_rival(other: Record, counted: Record) -> bool:
    """Whether another attempt could stand in the counted one's place: complete, whole, from the same spec."""
    return (
        other.status == counted.status == "complete"
        and other.spec_digest == counted.spec_digest
        and all(other.path.with_suffix(suffix).is_file() for suffix in other.files)
    )


def _rows(plan: Plan) -> Rows:
    """Return one row for every planned score."""
    history = Ledger(plan.study.output).history()
    planned = [job for job in plan.jobs if job.columns and job.part is None]
    foreign = foreign_rows(plan)
    metrics = {name: images.dataset.metric for name, images in plan.resolved.images.items()}
    for job in planned:  # of a data set whose images are not here, results know the metric
        if job.state == "done":
            record = history.finished[job.name]
            with readable(record):
                metrics.setdefault(record.columns["dataset"], record.columns["metric"])
    metrics = {**{score.dataset: score.metric for score, _ in foreign}, **metrics}
    return [_row(job, history, metrics.get(job.columns["dataset"], "top_1")) for job in planned] + foreign


def _part_rows(plan: Plan, counts: Mapping[str, Sequence[int]]) -> list[PartRow]:
    """Return one row for every planned score of the other experiments."""
    from pipeline.findings import part_row

    history, found = Ledger(plan.study.output).history(), []
    metrics = {name: images.dataset.metric for name, images in plan.resolved.images.items()}
    for planned in plan.jobs:
        if planned.part is not None and planned.columns:
            dataset = planned.columns["dataset"]
            score, record = _row(planned, history, metrics.get(dataset, "top_1"))
            found.append(part_row(planned.part, score, record, counts.get(dataset)))
    return found


def _row(planned: Planned, history: History, metric: Metric) -> tuple[Score, Record | None]:
    """Return the row of one job: its result where that is current, else what became of it."""
    record = history.finished.get(planned.name) if planned.state == "done" else None
    if record is not None:
        return _score(record.columns, metric, record.status, record, planned.name), record
    failure = history.failed.get(planned.name)
    spec = getattr(planned.job, "spec", None)
    if failure is not None and spec is not None and failure.spec_digest == sha256_of(spec):
        return _score(planned.columns, metric, "failed", failure, planned.name), failure
    status = "diverged" if planned.why == EVERY_POINT_DIVERGED else "missing"
    return _score(planned.columns, metric, status, None, planned.name), None


def _score(columns: Mapping[str, Any], metric: Metric, status: str, record: Record | None, job: str) -> Score:
    """Make a row; what the job does not know stays empty."""
    known = {"metric": metric, **columns}
    row = {name: known.get(name) for name in Score.__dataclass_fields__}
    source = f"results/{record.path.parent.name}/{record.path.name}" if record else ""
    return Score(**{**row, "status": status, "source": source, "job": job})  # type: ignore[arg-type]


def _cell(score: Score) -> tuple[str, str, Any, int | None]:
    """Name the cell of a row as the join does."""
    return label(score), score.dataset, score.regime, score.seed


def _test_counts(plan: Plan, rows: Rows) -> dict[str, list[int]]:
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


def _count_labels(labels: np.ndarray[Any, Any], classes: int) -> list[int]:
    """Count rows per class, or positives per label."""
    if labels.ndim == 2:
        return [int(v) for v in (labels == 1).sum(axis=0)]
    return [int(v) for v in np.bincount(labels, minlength=classes)]


def _made_from(plan: Plan, rows: Rows) -> str:
    """Digest everything that the joined files depend on."""
    return sha256_of(
        {
            "recipe": JOIN_RECIPE,
            "report_extra": _has_report_extra(),
            "rows": [[score.job, score.status, score.source, score.imagenet_top1] for score, _ in rows],
            **_other_experiments(plan),
            "foreign": [
                asdict(score) for score, record in rows if record is None and score.value is not None
            ],
            "report": plan.study.report.model_dump(),
            "published": published(plan),
            "study": plan.study.name,
        }
    )


def _other_experiments(plan: Plan) -> dict[str, Any]:
    """Return what the files of the other experiments depend on; nothing where there are none."""
    parts = [row.score for row in _part_rows(plan, {})]
    from pipeline.join_read_outs import read_out_records

    order = plan.study.regularisation
    found = {
        "settings": None if order is None else order.model_dump(),
        "parts": [[score.job, score.status, score.source] for score in parts],
        "read_outs": sorted(record.path.name for record in read_out_records(plan).values()),
        "analysis": kept_digest(plan.study.output),
    }
    return {name: value for name, value in found.items() if value}


def _has_report_extra() -> bool:
    """Whether figures and page can be made here."""
    import importlib.util

    return all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2", "pyarrow"))


def _read_stamp(plan: Plan) -> dict[str, Any] | None:
    """Return what the last join noted, None where there was none."""
    try:
        stamp = json.loads((plan.study.output / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(stamp, dict) and stamp.get("files") and {"made_from", "remarks"} <= set(stamp)
    return stamp if known else None


def _read_statistics(plan: Plan) -> dict[str, Any] | None:
    """Return the statistics of the last join, None where they cannot be read."""
    try:
        found = json.loads((plan.study.output / "statistics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(plan: Plan, table: TransferTable, rows: Rows, reporter: Reporter) -> JoinOutcome:
    """Compute the statistics and write every file; the stamp comes last."""
    from pipeline.join_experiments import experiment_findings
    from stages.report.bundle import report_files, table_files
    from stages.report.statistics import statistics

    output = plan.study.output
    make_folder(output)
    tests, lost = pair_tests(rows, table.metrics, output, reporter)
    table = replace(table, notes=(*table.notes, *lost))
    numbers = statistics(table, pairs=tests, missing=plan.study.report.missing)
    remarks: list[str] = []
    parts = _part_rows(plan, table.test_counts)
    findings = experiment_findings(parts, plan, table, draw=_has_report_extra())
    if _has_report_extra():
        reporter.say("drawing figures and report")
        contents = report_files(
            table,
            numbers,
            title=plan.study.name,
            limitations=plan.study.report.limitations,
            details=[cell_details(score, record) for score, record in rows],
            methods=methods(plan.study),
            provenance={
                **provenance(),
                **_study_file(plan.study),
            },
            paths=probe_paths(rows),
            curves=training_curves(rows),
            state_of_the_art=published(plan),
            extra=(*findings.figures, *kept(output)),
            findings=findings.lines,
        )
    else:
        contents = table_files(table, numbers)
        remarks.append('no figures and no report.html: install them with pip install "penultimate[report]"')
    contents |= findings.files
    before = (_read_stamp(plan) or {"files": []})["files"]
    for name, content in contents.items():
        make_folder((output / name).parent)
        write_file(output / name, content)
    stamp = {"made_from": _made_from(plan, rows), "files": list(contents), "remarks": remarks}
    stamp |= {"findings": list(findings.lines)} if findings.lines else {}
    write_file(output / STAMP, json.dumps(stamp, indent=1).encode())
    for name in set(before) - set(contents):  # the figures of a regime that the study no longer has
        (output / name).unlink(missing_ok=True)
    files = tuple(output / name for name in contents)
    return JoinOutcome(table, numbers, files, True, tuple(remarks), findings.lines)


def _study_file(study: Study) -> dict[str, Any]:
    """Return the study as its file has it, and the file's hash; without a file, the study's values."""
    try:
        content = study.file.read_bytes() if study.file else b""
        text = content.decode()
    except (OSError, UnicodeDecodeError):
        content = b""
    if not content:
        return {"study": json.dumps(study.model_dump(mode="json"), indent=1)}
    digest = hashlib.sha256(content).hexdigest()
    return {"study file": text, "study file, sha256": digest}
