"""Whether a job's result is done, missing or stale, and what is known of its score beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cache import canonical_json
from pipeline.config import Study
from pipeline.jobs import ResultJob, State
from pipeline.ledger import History, differences
from stages.records import Backbone

NOT_RUN = "not run yet"
"""Why a job is missing that has left nothing."""
_LINE = 200
"""Characters of changes that are told."""


def score_columns(
    study: Study, backbone: Backbone, dataset: str, regime: str, *, seed: int | None
) -> dict[str, Any]:
    """Return what is known of a row of scores.csv before its job has run."""
    return {
        "study": study.name,
        "backbone": backbone.name,
        "weights": backbone.weights.label,
        "variant": backbone.variant,
        "dataset": dataset,
        "regime": regime,
        "seed": seed,
        "imagenet_top1": backbone.imagenet_top1,
    }


def state_of(job: ResultJob, history: History) -> tuple[State, str]:
    """Compare a job with the ledger: done, missing or stale, and why."""
    current, failure = history.result_of(job.name, job.spec_digest), history.failed.get(job.name)
    if current is not None:
        return "done", str(current.path)
    if failure is not None and failure.spec_digest == job.spec_digest:
        return "missing", f"the last attempt failed: {failure.reason}"
    record = history.finished.get(job.name)
    if record is None:
        lost = history.lost(job.name)
        return "missing", "its result cannot be read" if lost else NOT_RUN
    return "stale", f"changed since: {_in_a_line(list(differences(record.spec, _plain(job.spec))))}"


def _in_a_line(changes: Sequence[str]) -> str:
    """Tell changes as far as a line goes, and count the rest."""
    told = 1
    while told < len(changes) and len("; ".join(changes[: told + 1])) <= _LINE:
        told += 1
    more = f" and {len(changes) - told} more" if told < len(changes) else ""
    return f"{'; '.join(changes[:told])}{more}"


def _plain(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the spec as JSON would give it back."""
    return dict(json.loads(canonical_json(spec)))
