"""Stage three's end: the ledger's results become one table, statistics, figures and a report on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.atomic import make_folder, write_file
from pipeline import join_stamp
from pipeline.cell_details import cell_details
from pipeline.config import Study
from pipeline.evidence import Rows, pair_tests, probe_paths, training_curves
from pipeline.foreign import published, published_nowhere
from pipeline.join_rows import (
    cell_of,
    open_reasons,
    part_rows,
    refuse_contradictions,
    score_rows,
    selection_notes,
    test_counts,
)
from pipeline.kept_figures import kept
from pipeline.methods import methods
from pipeline.plan import Plan
from pipeline.progress import SILENT, Reporter
from pipeline.provenance import provenance

if TYPE_CHECKING:
    from stages.report import TransferTable


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

    refuse_contradictions(plan)
    rows = score_rows(plan)
    table = join_scores(
        [score for score, _ in rows],
        expected=[cell_of(score) for score, _ in rows],
        test_counts=test_counts(plan, rows),
    )
    notes = (*plan.notes, *table.notes, *published_nowhere(plan, table.datasets))
    table = replace(table, notes=notes)
    stamp, statistics = join_stamp.read_stamp(plan), _read_statistics(plan)
    if stamp is not None and statistics is not None and join_stamp.join_state(plan)[0] == "done":
        files = tuple(plan.study.output / name for name in stamp["files"])
        told = tuple(stamp["remarks"]), tuple(stamp.get("findings", ()))
        return JoinOutcome(table, statistics, files, False, *told)
    return _write(plan, table, rows, reporter)


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
    reasons, chosen, remarks = open_reasons(plan), selection_notes(plan), list[str]()
    parts = part_rows(plan, table.test_counts)
    findings = experiment_findings(parts, plan, table, draw=join_stamp.has_report_extra())
    if join_stamp.has_report_extra():
        reporter.say("drawing figures and report")
        contents = report_files(
            table,
            numbers,
            title=plan.study.name,
            limitations=plan.study.report.limitations,
            details=[
                cell_details(score, record, reasons.get(score.job, ""), chosen.get(score.job))
                for score, record in rows
            ],
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
    before = join_stamp.read_stamp(plan)
    for name, content in contents.items():
        make_folder((output / name).parent)
        write_file(output / name, content)
    join_stamp.write_stamp(plan, rows, list(contents), remarks, findings.lines)
    for name in join_stamp.outdated(before, contents):
        if not (output / name).is_dir():
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
