"""What the joined files on disk were made from, and whether that is still what the ledger holds."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cache import sha256_of
from cache.atomic import write_file
from pipeline.evidence import Rows
from pipeline.foreign import published
from pipeline.jobs import State
from pipeline.join_rows import part_rows, score_rows
from pipeline.kept_figures import kept_digest
from pipeline.plan import Plan

JOIN_RECIPE = 4
"""Grows when the same results would be joined to other numbers or drawn otherwise."""
STAMP = "join.json"
"""Which results the files on disk were made from."""


def join_state(plan: Plan) -> tuple[State, str]:
    """Compare what the files on disk were made from with what is in the ledger now."""
    stamp = read_stamp(plan)
    if stamp is None:
        return "missing", "not joined yet"
    if stamp["made_from"] != _made_from(plan, score_rows(plan)):
        return "stale", "results or report settings changed since the last join"
    lost = [name for name in stamp["files"] if not (plan.study.output / name).is_file()]
    return ("stale", f"{lost[0]} is gone") if lost else ("done", str(plan.study.output / stamp["files"][0]))


def read_stamp(plan: Plan) -> dict[str, Any] | None:
    """Return what the last join noted, None where there was none."""
    try:
        stamp = json.loads((plan.study.output / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(stamp, dict) and stamp.get("files") and {"made_from", "remarks"} <= set(stamp)
    return stamp if known else None


def write_stamp(
    plan: Plan, rows: Rows, files: Sequence[str], remarks: Sequence[str], findings: Sequence[str]
) -> None:
    """Note what the files were made from, when all of them are written."""
    stamp = {"made_from": _made_from(plan, rows), "files": list(files), "remarks": list(remarks)}
    stamp |= {"findings": list(findings)} if findings else {}
    write_file(plan.study.output / STAMP, json.dumps(stamp, indent=1).encode())


def has_report_extra() -> bool:
    """Whether figures and page can be made here."""
    return all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2", "pyarrow"))


def _made_from(plan: Plan, rows: Rows) -> str:
    """Digest everything that the joined files depend on."""
    return sha256_of(
        {
            "recipe": JOIN_RECIPE,
            "report_extra": has_report_extra(),
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
    parts = [row.score for row in part_rows(plan, {})]
    from pipeline.join_read_outs import read_out_records

    order = plan.study.regularisation
    found = {
        "settings": None if order is None else order.model_dump(),
        "parts": [[score.job, score.status, score.source] for score in parts],
        "read_outs": sorted(record.path.name for record in read_out_records(plan).values()),
        "analysis": kept_digest(plan.study.output),
    }
    return {name: value for name, value in found.items() if value}
