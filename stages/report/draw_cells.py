"""Fine-tuned against from scratch, cell by cell, and the ranking of the backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.report.pairwise import LEVEL
from stages.report.style import REGIME_COLOURS, look, padded, percent_axis
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def against_scratch(table: TransferTable) -> Figure | None:
    """Draw one point per backbone and data set: colour and marker tell the data set."""
    from matplotlib.figure import Figure

    if not {"fine_tune", "from_scratch"} <= set(table.regimes):
        return None
    tuned, scratch = table.matrix("fine_tune"), table.matrix("from_scratch")
    both = tuned.notna() & scratch.notna()
    if not both.to_numpy().any():
        return None
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    ax = figure.subplots()
    low, high = padded([tuned.where(both).to_numpy(), scratch.where(both).to_numpy()])
    ax.plot([low, high], [low, high], color="#8c8c8c", linewidth=0.8, zorder=1)
    for place, name in enumerate(table.datasets):
        points = scratch[name].to_numpy(), tuned[name].to_numpy()
        ax.scatter(*points, s=16, alpha=0.8, linewidths=0, label=name, **look(place))
    percent_axis(ax, "x", low, high, most=9)
    percent_axis(ax, "y", low, high, most=9)
    ax.set_aspect("equal")
    ax.set_xlabel("Test score, from scratch (%)")
    ax.set_ylabel("Test score, fine-tuned (%)")
    figure.legend(loc="outside right center", frameon=False, handletextpad=0.2)
    return figure


def ranking_figure(table: TransferTable, statistics: Mapping[str, Any]) -> Figure | None:
    """Draw each regime's backbones by their mean; filled = not significantly different from the best."""
    from matplotlib.figure import Figure

    ranked = [r for r in table.regimes if len(statistics["regimes"][r]["means"]) >= 2]
    if not ranked:
        return None
    most = max(len(statistics["regimes"][r]["means"]) for r in ranked)
    figure = Figure(figsize=(7.0 * len(ranked) / 3 + 0.4, 0.75 + 0.155 * most), layout="constrained")
    axes = figure.subplots(1, len(ranked), squeeze=False)[0]
    for ax, regime in zip(axes, ranked, strict=True):
        _rank(ax, statistics["regimes"][regime], REGIME_COLOURS[regime])
        ax.set_title(REGIME_NAMES[regime])
        ax.set_xlabel("mean of log odds (%)")
    return figure


def _rank(ax: Axes, part: Mapping[str, Any], colour: str) -> None:
    """One regime, best on top."""
    means = part["means"]
    order = sorted(means, key=lambda name: means[name]["mean_log_odds"])
    p_of = {
        (t["second"] if t["first"] == order[-1] else t["first"]): t["p_value"]
        for t in part["paired_t_tests"]
        if order[-1] in (t["first"], t["second"])
    }
    values = np.array([means[name]["mean_log_odds"] for name in order])
    bars = np.array([means[name]["bar"] or 0.0 for name in order])
    for row, name in enumerate(order):
        p = p_of.get(name)
        filled = name == order[-1] or (p is not None and p > LEVEL)
        face = colour if filled else "white"
        ax.hlines(row, values[row] - bars[row], values[row] + bars[row], color=colour, linewidth=1.0)
        ax.plot(values[row], row, marker="o", markersize=4.5, color=colour, markerfacecolor=face)
    ax.set_yticks(range(len(order)), labels=[_short(name) for name in order], fontsize=6)
    ax.set_ylim(-0.7, len(order) - 0.3)
    percent_axis(ax, "x", *padded([values - bars, values + bars], least=0.05), most=4)


def _short(name: str, most: int = 26) -> str:
    """A name that leaves room for the plot."""
    if len(name) <= most:
        return name
    return f"{name[: math.ceil(most * 0.6)]}...{name[-math.floor(most * 0.3) :]}"
