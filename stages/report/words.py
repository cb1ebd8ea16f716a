"""The report's sentences: what was found, what is missing, what to be careful about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES, correlation_lines

PUBLIC_CHECKPOINTS = (
    "Public checkpoints were each trained by their own recipe (label smoothing, dropout, auxiliary heads, "
    "longer schedules), and such recipes change how well fixed features transfer without changing ImageNet "
    "top-1. With public checkpoints the correlation of the linear probe is known to be lower than with "
    "networks trained alike (Kornblith, Shlens and Le, 2019): r here says as much about recipes as about "
    "architectures."
)
RELATED = (
    "Related architectures are not independent draws: the interval of r takes the backbones as independent, "
    "so it is rather too narrow than too wide."
)


def summary(table: TransferTable) -> str:
    """Return the size of the study and what became of its cells, in one sentence."""
    counts = table.counts()
    done = counts["complete"] + counts["partial"]
    open_cells = [f"{counts[key]} {key}" for key in ("failed", "diverged", "missing") if counts[key]]
    size = " x ".join(
        [
            _count(len(table.backbones), "backbone"),
            _count(len(table.datasets), "data set"),
            _count(len(table.regimes), "regime"),
        ]
    )
    rest = f", {', '.join(open_cells)}" if open_cells else ""
    return f"{size}: {_count(done, 'cell')} with a score{rest}."


def correlated(table: TransferTable, statistics: Mapping[str, Any]) -> list[str]:
    """Return r of every regime, and how much it hangs on single data sets."""
    spread = [line for regime in table.regimes if (line := _spread(statistics, regime))]
    return [*correlation_lines(statistics), *spread]


def compared(statistics: Mapping[str, Any]) -> list[str]:
    """Return the comparisons of the regimes."""
    return [_compared(c) for c in statistics["regime_comparisons"]]


def _spread(statistics: Mapping[str, Any], regime: str) -> str | None:
    """The leave-one-out range of r."""
    found = statistics["regimes"][regime]["correlation"]["leave_one_dataset_out"]
    if found is None:
        return None
    low, high = found["range"]
    return (
        f"{REGIME_NAMES[regime]}: with one data set left out, r lies between {low:.2f} (without "
        f"{found['without_lowest']}) and {high:.2f} (without {found['without_highest']})"
    )


def _compared(comparison: Mapping[str, Any]) -> str:
    """One comparison of regimes, in words."""
    text = str(comparison["text"])
    for key, name in REGIME_NAMES.items():
        text = text.replace(key, name)
    return text


def remarks(table: TransferTable) -> list[str]:
    """Return the cautions that the protocol asks for."""
    public = any(s.weights == "pretrained" or s.weights.startswith("package:") for s in table.scores)
    return [*([PUBLIC_CHECKPOINTS] if public else []), RELATED]


def problems(table: TransferTable, details: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return every cell without a score or a row, every note of the join and every warning of a job."""
    return [*_open_cells(table, details), *_no_rows(table), *_rules(table), *table.notes, *_warnings(details)]


def _open_cells(table: TransferTable, details: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line per cell that lacks something, with the reason where one is known."""
    reasons = {
        tuple(detail.get(key) for key in ("backbone", "dataset", "regime")): f" ({detail['reason']})"
        for detail in details
        if detail.get("reason")
    }
    for cell in table.cells.to_dict("records"):
        where = f"{cell['backbone']} on {cell['dataset']}, {REGIME_NAMES[cell['regime']]}"
        if cell["status"] in ("failed", "diverged", "missing"):
            why = reasons.get((cell["backbone"], cell["dataset"], cell["regime"]), "")
            yield f"{where}: {cell['status']}{why}"
        elif cell["status"] == "partial":
            yield f"{where}: {cell['seeds_complete']} of {cell['seeds_planned']} seeds"


def _no_rows(table: TransferTable) -> Iterator[str]:
    """One line per backbone and regime with combinations that nobody planned or delivered."""
    cells = table.cells
    for regime in table.regimes:
        backbones, datasets = table.in_regime(regime)
        empty = cells[(cells["regime"] == regime) & (cells["status"] == "not planned")]
        for name in backbones:
            own = set(empty["dataset"][empty["backbone"] == name])
            if lacking := [dataset for dataset in datasets if dataset in own]:
                yield f"{name}, {REGIME_NAMES[regime]}: no row for {', '.join(lacking)}"


def _rules(table: TransferTable) -> Iterator[str]:
    """Clamped cells, in one line each."""
    for cell in table.cells.to_dict("records"):
        if cell["clamped"]:
            where = f"{cell['backbone']} on {cell['dataset']}, {REGIME_NAMES[cell['regime']]}"
            yield f"{where}: score {100 * cell['value']:.1f} %, its log odds are clamped to stay finite"


def _warnings(details: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The warnings that came with the details of cells."""
    for detail in details:
        where = f"{detail.get('backbone', '')} on {detail.get('dataset', '')}"
        regime = REGIME_NAMES.get(str(detail.get("regime", "")), "")
        for warning in detail.get("warnings") or ():
            yield f"{where}, {regime}: {warning}"


def _count(number: int, noun: str) -> str:
    """Number and noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
