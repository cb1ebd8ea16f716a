"""What the command line prints: outcomes, plans and tables, for people and as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.jobs import STAGES
from pipeline.plan import Plan
from pipeline.run import Outcome

SHOWN = 20
"""Jobs that a list names before it counts the rest."""


def outcome_text(outcome: Outcome) -> str:
    """Return what came of a run: scores and report where joined, failures last."""
    blocks = []
    if outcome.joined is not None:
        from stages.report.text import correlation_lines, score_table

        blocks += [score_table(outcome.joined.table), "\n".join(correlation_lines(outcome.joined.statistics))]
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
    }


def plan_text(plan: Plan, *, every_job: bool) -> str:
    """Return a plan: counts per stage, then the jobs."""
    rows = []
    for stage in STAGES:
        counts = Counter(job.state for job in plan.of(stage))
        if counts:
            states = {state: counts[state] for state in ("done", "missing", "stale", "waiting")}
            rows.append({"stage": stage, **states})
    jobs = [job for job in plan.jobs if every_job or job.state != "done"]
    lines = [f"{job.state:8} {job.name}: {job.why}" for job in jobs]
    if not every_job and len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"... and {len(lines) - SHOWN} more (penultimate plan shows all)"]
    return "\n".join([rows_text(rows), "", *lines] if lines else [rows_text(rows)])


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    return {
        "study": plan.study.name,
        "output": str(plan.study.output),
        "jobs": [
            {"name": job.name, "stage": job.stage, "state": job.state, "why": job.why} for job in plan.jobs
        ],
        "notes": list(plan.notes),
    }


def backbone_rows(pattern: str) -> list[dict[str, Any]]:
    """Return what is known of the backbones whose name holds the pattern."""
    from stages.backbones import known, lookup

    rows = []
    for name in known():
        if pattern.lower() in name.lower():
            facts = lookup(name)
            rows.append(
                {
                    "name": name,
                    "dimension": facts.dimension,
                    "input_size": facts.size,
                    "parameters": facts.parameters,
                    "imagenet_top1": facts.imagenet_top1,
                }
            )
    return rows


def dataset_rows() -> list[dict[str, Any]]:
    """Return the image sets known by name."""
    from stages.datasets import PACKAGED

    return [{"name": name, "package": s.package, "about": s.about} for name, s in PACKAGED.items()]


def rows_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay rows out in columns; numbers to the right."""
    if not rows:
        return ""
    header = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in header] for row in rows]
    widths = [max(len(header[i]), *(len(line[i]) for line in cells)) for i in range(len(header))]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in header]
    lines = []
    for line in [header, *cells]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _text(value: object) -> str:
    """Show a cell; an unknown value is a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
