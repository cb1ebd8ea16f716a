"""What the command line prints: outcomes, plans and tables, for people and as JSON values."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.grids import grid_tables, grids_text
from pipeline.job_output import under_way
from pipeline.jobs import STAGES, Planned
from pipeline.ledger import file_stem
from pipeline.plan import Plan
from pipeline.run import Outcome
from pipeline.text_tables import rows_text

SHOWN = 20
"""Jobs that a list names before it counts the rest."""


def outcome_text(outcome: Outcome) -> str:
    """Return what came of a run: scores and report where joined, failures last."""
    blocks = []
    if outcome.joined is not None:
        from stages.report.text import correlation_lines, score_table

        blocks += [score_table(outcome.joined.table), "\n".join(correlation_lines(outcome.joined.statistics))]
        blocks += ["\n".join(outcome.joined.findings)] if outcome.joined.findings else []
        first = outcome.joined.files[0]
        what = "report" if first.suffix == ".html" else "scores"
        blocks.append("\n".join([*outcome.joined.remarks, f"{what}: {first}"]))
    if outcome.waiting:
        lines = [f"{job.name}: {job.why}" for job in outcome.waiting]
        blocks.append("waiting:\n" + _indented(lines))
    if outcome.failed:
        lines = [f"{failure.job}: {failure.reason}\n  log: {failure.log}" for failure in outcome.failed]
        retry = "run the same command again to retry them"
        blocks.append(f"{len(outcome.failed)} jobs failed; {retry}:\n" + _indented(lines))
    elif outcome.nothing_to_do and not outcome.waiting:
        blocks.append("nothing to do: everything is there and current")
    elif outcome.done:
        blocks.append(f"{len(outcome.done)} jobs done")
    return "\n\n".join(blocks)


def outcome_markdown(outcome: Outcome) -> str:
    """Return the joined study's report in Markdown; without the extra that writes it, the short text."""
    written = [path for path in (outcome.joined.files if outcome.joined else ()) if path.suffix == ".md"]
    return written[0].read_text(encoding="utf-8") if written else outcome_text(outcome)


def _indented(lines: Sequence[str]) -> str:
    """Show the first lines and count the rest."""
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join("  " + line for line in [*lines[:SHOWN], *more])


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return a run as JSON values."""
    joined = outcome.joined
    return {
        "study": outcome.study.name,
        "output": str(outcome.study.output),
        "nothing_to_do": outcome.nothing_to_do,
        "done": list(outcome.done),
        "failed": [{"job": f.job, "reason": f.reason, "log": str(f.log)} for f in outcome.failed],
        "waiting": [{"job": p.name, "why": p.why} for p in outcome.waiting],
        "warnings": list(outcome.warnings),
        "notes": list(outcome.notes),
        "files": [str(path) for path in joined.files] if joined else [],
        "remarks": list(joined.remarks) if joined else [],
        "findings": list(joined.findings) if joined else [],
    }


def plan_text(plan: Plan, *, every_job: bool) -> str:
    """Return a plan: counts per stage, then the jobs; with every job also what is to be known of the study."""
    rows = []
    for stage in STAGES:
        counts = Counter(job.state for job in plan.of(stage))
        if counts:
            states = {state: counts[state] for state in ("done", "missing", "stale", "waiting")}
            rows.append({"stage": stage, **states})
    grids = [] if every_job else [text for text in (grids_text(plan),) if text]
    jobs = [job for job in plan.jobs if every_job or job.state != "done"]
    lines = [f"{job.state:8} {job.name}: {job.why}" for job in jobs]
    if not every_job and len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"... and {len(lines) - SHOWN} more (penultimate plan shows all)"]
    running = [] if every_job else under_way_lines(plan)
    told = ["under way:\n" + _indented(running)] if running else []
    notes = ["\n".join(f"note: {note}" for note in plan.notes)] if every_job and plan.notes else []
    return "\n\n".join([rows_text(rows), *grids, *told, *(["\n".join(lines)] if lines else []), *notes])


def pretraining_text(jobs: Sequence[Planned], study: Path, *, every_job: bool) -> str:
    """Return the source-task trainings of a study, which another command does than the study's own jobs."""
    counts = Counter(job.state for job in jobs)
    states = ", ".join(f"{counts[state]} {state}" for state in ("done", "missing", "stale") if counts[state])
    lines = [f"{job.state:8} {job.name}: {job.why}" for job in jobs if every_job or job.state != "done"]
    head = f"pretrain (by `penultimate pretrain {shlex.quote(str(study))}`): {states}"
    return "\n".join([head, *([_indented(lines)] if lines else [])])


def under_way_lines(plan: Plan) -> list[str]:
    """Return the jobs that processes here or elsewhere are doing now, one line each, with host and time."""
    names = {file_stem(job.name): job.name for job in plan.jobs}
    running = under_way(plan.study.output / "logs")
    return [f"{names.get(stem, stem)}: {where}" for stem, where in running.items()]


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    return {
        "study": plan.study.name,
        "output": str(plan.study.output),
        "jobs": jobs_json(plan.jobs),
        "under_way": under_way_lines(plan),
        "grids": grid_tables(plan),
        "notes": [*plan.notes, *plan.absent],
    }


def jobs_json(jobs: Sequence[Planned]) -> list[dict[str, str]]:
    """Return planned jobs as JSON values."""
    return [{"name": job.name, "stage": job.stage, "state": job.state, "why": job.why} for job in jobs]


def dataset_rows() -> list[dict[str, Any]]:
    """Return the image sets known by name."""
    from stages.datasets import PACKAGED, PAPER_SETS

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "classes": facts.classes,
            "train": facts.train - facts.validation,
            "validation": facts.validation,
            "test": facts.test,
            "metric": facts.metric,
            "about": facts.title,
            "official_validation": facts.official_validation,
            "unpacks_to": facts.homes[0],
            "archives": facts.archives,
            "fetch": facts.fetch,
            "hub": facts.hub.name if facts.hub else None,
        }
        for name, facts in PAPER_SETS.items()
    ]
    for name, packed in PACKAGED.items():
        sizes = dict.fromkeys(("classes", "train", "validation", "test", "metric"))
        rows.append({"name": name, **sizes, "about": packed.about, "package": packed.package})
    return rows


def datasets_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay the image sets known by name out for a terminal: the paper's, and those in Python packages."""
    paper = [row for row in rows if row["classes"]]
    tables = [
        rows_text(
            [
                {key: row[key] for key in ("name", "classes", "train")}
                | {"validation": f"{row['validation']}{'' if row['official_validation'] else '*'}"}
                | {key: row[key] for key in ("test", "metric", "unpacks_to", "about")}
                for row in paper
            ]
        ),
        "* drawn from train by seed, of the size that later work used; the others are official\n"
        'the paper\'s sets: unpack the archives below one folder, and name it by root = "..." or '
        "$PENULTIMATE_DATASETS;\npenultimate datasets show NAME says what is there, or where it can be fetched",
        rows_text([{"name": row["name"], "about": row["about"]} for row in rows if not row["classes"]]),
    ]
    return "\n\n".join(tables)
