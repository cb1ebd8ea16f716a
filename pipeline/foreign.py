"""What other people found, as the study names it: their scores as rows, the best published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.evidence import label
from pipeline.ledger import Record
from pipeline.plan import Plan
from stages.backbones import lookup
from stages.errors import BackboneError
from stages.names import did_you_mean
from stages.records import Score


def foreign_rows(plan: Plan) -> list[tuple[Score, Record | None]]:
    """Return the rows of the csv files that the study joins in; each row's source names its file.

    ImageNet top-1 is the row's own, else that of the study's backbone of the same label, else that of the
    table that ships, for the exact name and tag.
    """
    from stages.report.files import read_scores

    own = {backbone.label: backbone.imagenet_top1 for backbone in plan.resolved.backbones}
    rows: list[tuple[Score, Record | None]] = []
    for name in plan.study.report.scores:
        for score in read_scores(plan.study.folder / name):
            given = score.imagenet_top1
            top1 = (own.get(label(score)) or _known_top1(score)) if given is None else given
            source = score.source if score.source.startswith(Path(name).name) else f"{score.source} ({name})"
            rows.append((replace(score, imagenet_top1=top1, source=source), None))
    return rows


def published(plan: Plan) -> dict[str, float]:
    """Return the best published scores, where the study names a file of them."""
    from stages.report.files import read_published

    name = plan.study.report.state_of_the_art
    return read_published(plan.study.folder / name) if name else {}


def published_nowhere(plan: Plan, datasets: Sequence[str]) -> tuple[str, ...]:
    """Say of which published scores the study has no data set: they are drawn nowhere."""
    lost = [name for name in published(plan) if name not in datasets]
    told = ", ".join(f"{name}{did_you_mean(name, datasets)}" for name in lost)
    return (
        (f"{plan.study.report.state_of_the_art}: no data set of the study is called {told}",) if lost else ()
    )


def _known_top1(score: Score) -> float | None:
    """Return what the shipped table knows of a foreign row's very weights.

    A bare architecture has one default tag here and another elsewhere: only who says "pretrained", as this
    tool's own scores.csv does, means ours.
    """
    if score.variant or score.weights not in ("", "pretrained"):
        return None
    try:
        facts = lookup(score.backbone)
    except BackboneError:
        return None
    exact = facts.name == score.backbone or score.weights == "pretrained"
    return facts.imagenet_top1 if exact else None
