"""What the joined files on disk were made from, and whether that is still what the ledger holds."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from cache import sha256_of
from cache.atomic import write_file
from pipeline.evidence import Rows
from pipeline.foreign import published
from pipeline.jobs import State
from pipeline.join_rows import open_reasons, part_rows, score_rows, selection_notes
from pipeline.kept_figures import kept_digest
from pipeline.ledger import Record
from pipeline.plan import Plan

JOIN_RECIPE = 4
"""Grows when the same results would be joined to other numbers or drawn otherwise."""
STAMP = "join.json"
"""Which results the files on disk were made from."""
_PLACE = re.compile(r"(figures/)?[^/\\]+")
_MADE = re.compile(
    r"figures/[^/\\]+\.(pdf|png)|(report|scores|statistics|few_examples|convergence|regularisation"
    r"|read_outs|rankings)\.(html|md|csv|parquet|json)"
)


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
    if not isinstance(stamp, dict) or not isinstance(stamp.get("made_from"), str) or not stamp.get("files"):
        return None
    texts = [stamp["files"], stamp.get("remarks"), stamp.get("findings", [])]
    if not all(isinstance(part, list) and all(isinstance(text, str) for text in part) for part in texts):
        return None
    return stamp if all(_PLACE.fullmatch(name) for name in stamp["files"]) else None


def outdated(before: dict[str, Any] | None, names: Iterable[str]) -> list[str]:
    """Return what an earlier join made and this one did not, as the figures of a regime that is no longer there.

    The stamp comes with a folder, perhaps from somebody else: only what a join can have made is named.
    """
    left = set(before["files"] if before else ()) - set(names)
    return sorted(name for name in left if _MADE.fullmatch(name))


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
    chosen = {name: notes for name, notes in selection_notes(plan).items() if notes}
    return sha256_of(
        {
            "recipe": JOIN_RECIPE,
            "report_extra": has_report_extra(),
            "rows": [
                [score.job, score.status, score.source, score.imagenet_top1, *_content(record)]
                for score, record in rows
            ],
            "open": open_reasons(plan),
            **_other_experiments(plan),
            **({"selection": chosen} if chosen else {}),
            "foreign": [
                asdict(score) for score, record in rows if record is None and score.value is not None
            ],
            "report": plan.study.report.model_dump(),
            "published": published(plan),
            "study": plan.study.name,
        }
    )


def _content(record: Record | None) -> list[Any]:
    """Return what tells a record from another of its file name, and whether its arrays are there."""
    if record is None:
        return []
    arrays = record.path.with_suffix(".npz")
    try:
        return [record.digest, arrays.stat().st_size if ".npz" in record.files else 0]
    except OSError:
        return [record.digest, None]


def _other_experiments(plan: Plan) -> dict[str, Any]:
    """Return what the files of the other experiments depend on; nothing where there are none."""
    parts = [(row.score, row.record) for row in part_rows(plan, {})]
    from pipeline.join_read_outs import read_out_records

    order = plan.study.regularisation
    found = {
        "settings": None if order is None else order.model_dump(),
        "parts": [[score.job, score.status, score.source, *_content(record)] for score, record in parts],
        "read_outs": sorted([r.path.name, r.digest] for r in read_out_records(plan).values()),
        "analysis": kept_digest(plan.study.output),
    }
    return {name: value for name, value in found.items() if value}
