"""The training grids of a study as tables: what is done, what is under way and how far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.jobs import Planned, TrainJob
from pipeline.ledger import History
from pipeline.live import last_points
from pipeline.plan import Plan
from pipeline.text_tables import rows_text
from pipeline.work_train import training_folder
from stages.train.curve import FILE as CURVE


def grid_tables(plan: Plan) -> list[dict[str, Any]]:
    """Return one table for each backbone, data set, regime and length of training that is searched.

    Returns
    -------
    list of dict
        "cell": backbone on data set in regime; "points": one row a grid point with learning_rate, weight_decay,
        state ("done", "diverged", "running", "failed", "missing", ...), value (fraction on validation or None)
        and steps done.
    """
    output = plan.study.output
    cells: dict[str, list[dict[str, Any]]] = {}
    for planned in plan.jobs:
        job = planned.job
        if isinstance(job, TrainJob) and job.score_on == "validation":
            cell = f"{job.name.rpartition('/')[0]}, {job.recipe.steps} steps"
            cells.setdefault(cell, []).append(_point(planned, job, plan.history, output))
    return [{"cell": cell, "points": points} for cell, points in cells.items()]


def grids_text(plan: Plan) -> str:
    """Return the tables for a terminal: learning rates across, weight decays down, validation in percent."""
    return "\n\n".join(_lay_out(table) for table in grid_tables(plan))


def _point(planned: Planned, job: TrainJob, history: History, output: Path) -> dict[str, Any]:
    """Say how far one grid point is."""
    record = history.result_of(job.name, job.spec_digest) if planned.state == "done" else None
    result = record.summary if record else {"value": None, "steps": _steps_done(job, output)}
    state: str = planned.state
    if record is not None:
        state = "done" if result["value"] is not None else "diverged"
    elif _has_failed(job, history, output):
        state = "failed"
    elif result["steps"]:
        state = "running"
    return {
        "learning_rate": job.learning_rate,
        "weight_decay": job.weight_decay,
        "state": state,
        "value": result["value"],
        "steps": result["steps"],
        "of": job.recipe.steps,
    }


def _has_failed(job: TrainJob, history: History, output: Path) -> bool:
    """Whether the last attempt at a job failed and no other is under way, which would write its curve anew."""
    failure = history.failed.get(job.name)
    if failure is None or failure.spec_digest != job.spec_digest:
        return False
    curve = training_folder(job, output) / CURVE
    return not curve.is_file() or curve.stat().st_mtime_ns <= failure.path.stat().st_mtime_ns


def _steps_done(job: TrainJob, output: Path) -> int:
    """Read how far a job's curve is; 0 where it has none."""
    points = last_points(training_folder(job, output))
    return points[-1].step + 1 if points else 0


def _lay_out(table: Mapping[str, Any]) -> str:
    """Lay one grid out."""
    points = table["points"]
    rows: dict[float, dict[str, str]] = {}
    for point in points:
        row = rows.setdefault(point["weight_decay"], {"": f"  c = {point['weight_decay']:.3g}"})
        row[f"lr {point['learning_rate']:.3g}"] = _shown(point)
    done = sum(point["state"] in ("done", "diverged") for point in points)
    head = f"{table['cell']}: {done} of {len(points)} grid points, validation in %"
    head += " (lr: learning rate; c: weight decay, before it is divided by lr)"
    return f"{head}\n{rows_text(list(rows.values()))}"


def _shown(point: Mapping[str, Any]) -> str:
    """Return the cell of one point."""
    if point["value"] is not None:
        return f"{100 * point['value']:.1f}"
    if point["state"] == "running":
        return f"({100 * point['steps'] // point['of']} % of steps)"
    return "." if point["state"] == "missing" else str(point["state"])
