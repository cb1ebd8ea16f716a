"""The joined table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stages.records import Regime
from stages.report.table import TransferTable

REGIME_NAMES: dict[str, str] = {
    "linear_probe": "linear probe",
    "fine_tune": "fine-tuned",
    "from_scratch": "from scratch",
}
_MARKS = {"failed": "failed", "diverged": "diverged", "missing": "missing", "not planned": "-"}


def cell_text(value: float, status: str, clamped: bool) -> str:
    """Return a cell in percent, or the word for what it lacks; ``*`` = some seeds only, ``^`` = clamped."""
    if status in _MARKS:
        return _MARKS[status]
    return f"{100 * value:.1f}{'*' if status == 'partial' else ''}{'^' if clamped else ''}"


def score_table(table: TransferTable) -> str:
    """Return the scores in percent, one block per regime: backbones down, data sets across.

    Parameters
    ----------
    table : TransferTable

    Returns
    -------
    str
        Plain text without a final newline; a legend follows where a cell bears a mark.
    """
    blocks = [_block(table, regime) for regime in table.regimes]
    text = "\n\n".join(blocks)
    return "\n".join([text, *legend_lines(table)])


def legend_lines(table: TransferTable) -> list[str]:
    """Return what the marks mean that the table bears."""
    counts = table.counts()
    marks = (("partial", "* mean of some of the seeds"), ("clamped", "^ log odds clamped to stay finite"))
    return [words for key, words in marks if counts[key]]


def _block(table: TransferTable, regime: Regime) -> str:
    """One regime."""
    cells = table.cells
    cells = cells[cells["regime"] == regime]
    marked = [
        cell_text(value, status, clamped)
        for value, status, clamped in zip(cells["value"], cells["status"], cells["clamped"], strict=True)
    ]
    wide = cells.assign(shown=marked).pivot_table(
        index="backbone", columns="dataset", values="shown", aggfunc="first"
    )
    wide = wide.reindex(index=list(table.backbones), columns=list(table.datasets))
    top1 = [table.imagenet_top1[name] for name in table.backbones]
    wide.insert(0, "ImageNet", ["?" if value is None else f"{100 * value:.1f}" for value in top1])
    return f"{REGIME_NAMES[regime]} (test score, %)\n{_aligned(wide)}"


def _aligned(wide: pd.DataFrame) -> str:
    """Columns padded to their widest entry: names left, numbers right."""
    names = ["", *[str(name) for name in wide.index]]
    left = max(len(name) for name in names)
    lines = [name.ljust(left) for name in names]
    for column in wide.columns:
        entries = [str(column), *[str(entry) for entry in wide[column]]]
        width = max(len(entry) for entry in entries)
        lines = [f"{line}  {entry.rjust(width)}" for line, entry in zip(lines, entries, strict=True)]
    return "\n".join(lines)


def correlation_lines(statistics: Mapping[str, Any]) -> list[str]:
    """Return one line per regime: r between ImageNet top-1 and transfer, or the words that stand for it."""
    lines = []
    for regime, part in statistics["regimes"].items():
        shown = part["correlation"]["verdict"] == "defined"
        gaps = f"; left out for gaps: {', '.join(part['left_out'])}" if shown and part["left_out"] else ""
        lines.append(
            f"{REGIME_NAMES[regime]}: r {'=' if shown else 'is'} {part['correlation']['text']}{gaps}"
        )
    return lines


def r_text(correlation: Mapping[str, Any], brief: bool = False) -> str:
    """Return r with its interval (without, if ``brief``), or the words that stand for it."""
    if correlation["verdict"] != "defined":
        return f"r: {correlation['verdict']}"
    low, high = correlation["interval"]
    text = f"r = {correlation['pearson']:.2f}"
    return text if brief else f"{text} [{low:.2f}, {high:.2f}]"
