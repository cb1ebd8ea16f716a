"""What `penultimate backbones` prints: a table for people, every fact as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.text_tables import rows_text

USUAL = {
    (0.485, 0.456, 0.406, 0.229, 0.224, 0.225): "ImageNet's",
    (0.5, 0.5, 0.5, 0.5, 0.5, 0.5): "[-1, 1]",
    (0.0, 0.0, 0.0, 1.0, 1.0, 1.0): "[0, 1]",
}
"""Mean and standard deviation -> a word for them."""
PAPER_NOTE = """
top-1: of the public checkpoint, and of the paper's own, which is not public. None of the public ones was trained as
the paper trained all sixteen (no label smoothing, dropout or auxiliary head), and with them better ImageNet models
need not transfer better as fixed features. Parameters are without the classifier."""


def backbone_rows(pattern: str) -> list[dict[str, Any]]:
    """Return what is known of the backbones whose name holds the pattern; the paper's stand in its order."""
    from stages.backbones import PACKAGED_TOP1, known, lookup
    from stages.paper_backbones import paper_backbone, paper_names

    packages: dict[str, list[str]] = {}
    for package, (architecture, _) in PACKAGED_TOP1.items():
        packages.setdefault(architecture, []).append(package)
    rows = []
    for name in [*paper_names(), *(n for n in known() if paper_backbone(n) is None)]:
        if pattern.lower() in name.lower():
            facts = lookup(name)
            row: dict[str, Any] = {
                "name": name,
                "dimension": facts.dimension,
                "input_size": facts.size,
                "parameters": facts.parameters,
                "imagenet_top1": facts.imagenet_top1,
                "imagenet_top1_source": facts.top1_source,
                "mean": list(facts.mean),
                "std": list(facts.std),
                "interpolation": facts.interpolation,
                "pretrained_weights": facts.source or None,
            }
            if paper := paper_backbone(name):
                own = {"paper_name": paper.paper_name, "paper_top1": paper.paper_top1}
                row |= {"public_checkpoint": facts.builds, "trained_as_paper": False, **own}
            if found := packages.get(name.partition(".")[0]):
                row["packaged_weights"] = {package: PACKAGED_TOP1[package][1] for package in found}
            rows.append(row)
    return rows


def backbones_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay the rows out for a terminal, with what a reader must know of the numbers."""
    blocks = [rows_text([_short(row) for row in rows])]
    if any("paper_top1" in row for row in rows):
        blocks.append(PAPER_NOTE)
    packaged = {package: top1 for row in rows for package, top1 in row.get("packaged_weights", {}).items()}
    if packaged:
        named = "\n".join(f'weights = "{package}": top-1 {top1:.4f}' for package, top1 in packaged.items())
        blocks.append(f"\nweights that come as Python packages:\n{named}")
    sources = {row["imagenet_top1_source"] for row in rows if row["imagenet_top1_source"]}
    if sources:
        blocks.append("\n".join(["", "ImageNet top-1 from:", *sorted(sources)]))
    return "\n".join(blocks)


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that fit beside each other."""
    short = {key: row[key] for key in ("name", "dimension", "input_size", "parameters")}
    short["normalisation"] = USUAL.get((*row["mean"], *row["std"])) or _numbers(row)
    short["top-1"] = _fraction(row["imagenet_top1"])
    if "paper_top1" in row:
        short |= {
            "paper's top-1": _fraction(row["paper_top1"]),
            "public checkpoint": row["public_checkpoint"],
        }
    return short


def _numbers(row: Mapping[str, Any]) -> str:
    """Write an unusual normalisation out, three numbers as one where they are equal."""
    words = []
    for key in ("mean", "std"):
        values = [f"{value:.3g}" for value in row[key]]
        words.append(f"{key} {' '.join(values if len(set(values)) > 1 else values[:1])}")
    return ", ".join(words)


def _fraction(value: float | None) -> str | None:
    """Write a fraction with three places, as far as published ones mean anything."""
    return None if value is None else f"{value:.3f}"
