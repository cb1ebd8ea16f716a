"""What the report says of one cell beside its score: what was chosen, how sure the fit is, what it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evidence import label, readable
from pipeline.ledger import Record
from stages.records import Score

_DIGITS = 12
"""Of a digest, where people read it; the commands take as few."""


def cell_details(
    score: Score, record: Record | None, why: str = "", notes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the details of one row of scores.csv.

    Parameters
    ----------
    score : Score
    record : Record or None
        None for a missing cell, and for a row that others made.
    why : str
        Of a missing cell: why it is missing.
    notes : sequence of str, optional
        Of the choice of a training's grid point, as the grid is now; None = as the record has them.

    Returns
    -------
    dict
        The cell's coordinates, then names and values in the order in which they are shown; what is not
        known is empty.

    Raises
    ------
    JoinError
        The record's result is not one of this tool; the file is named.
    """
    told = {
        "backbone": label(score),
        "dataset": score.dataset,
        "regime": score.regime,
        "seed": score.seed,
        "status": score.status,
        "value": score.value,
        "l2_lambda": score.l2_lambda,
        "learning_rate": score.learning_rate,
        "weight_decay": score.weight_decay,
        "steps": score.steps,
        "source": score.source,
    }
    if record is None:
        return {**told, "reason": why} if why else told
    with readable(record):
        return {**told, **_of_record(record, notes)}


def _of_record(record: Record, notes: Sequence[str] | None) -> dict[str, Any]:
    """What the record knows beyond the row."""
    result = record.result
    chosen = result.get("selection_notes", ()) if notes is None else notes
    return {
        "selection": result.get("selection_method"),
        "certificate": _certificate(result.get("extras") or {}, record.spec),
        **_figures(result.get("extras") or {}),
        "seconds": result.get("seconds"),
        "cache keys": _digests(result.get("entries") or {}),
        "features": _digests(result.get("content_digests") or {}),
        "reason": record.reason,
        "warnings": [str(line) for line in dict.fromkeys((*chosen, *result.get("warnings", ())))],
        "notes": [str(line) for line in result.get("notes", ())],
        "written": record.provenance.get("written"),
        "record, sha256": hashlib.sha256(record.path.read_bytes()).hexdigest(),
    }


def _certificate(extras: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """The refit's certificate in words; empty where there is none."""
    if extras.get("objective") is None or extras.get("bound") is None:
        return ""
    tolerance = (spec.get("probe") or {}).get("tolerance")
    asked = "" if tolerance is None else f"; tolerance asked for {float(tolerance):g}, relative"
    likely = extras.get("estimate")
    guess = "" if likely is None else f", most likely {float(likely):.2g}"
    return (
        f"objective {float(extras['objective']):.6g}, at most {float(extras['bound']):.2g} above its optimum"
        f"{guess}{asked}"
    )


def _figures(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Figures beside the metric."""
    named = {"test log loss": "log_loss", "test calibration error": "calibration_error"}
    return {name: extras.get(key) for name, key in named.items()}


def _digests(by_split: Mapping[str, Any]) -> str:
    """Digests of the splits, short."""
    return ", ".join(f"{split} {str(digest)[:_DIGITS]}" for split, digest in by_split.items())
