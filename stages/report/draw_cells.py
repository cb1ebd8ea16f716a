"""Fine-tuned against from scratch, cell by cell, and the ranking of the backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.report.logodds import SAME
from stages.report.pairwise import LEVEL
from stages.report.style import REGIME_COLOURS, cell_look, padded, percent_axis, shortened
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def against_scratch(table: TransferTable) -> Figure | None:
    """Draw one point per backbone and data set: the colour tells the data set, the marker the backbone."""
    from matplotlib.figure import Figure

    if not {"fine_tune", "from_scratch"} <= set(table.regimes):
        return None
    tuned, scratch = (table.matrix(r).to_numpy(dtype=float) for r in ("fine_tune", "from_scratch"))
    both = np.isfinite(tuned) & np.isfinite(scratch)
    if not both.any():
        return None
    figure = Figure(figsize=(min(7.0, 4.1 + _key_inches(table)), 3.7), layout="constrained")
    ax = figure.subplots()
    low, high = padded([tuned[both], scratch[both]])
    ax.plot([low, high], [low, high], color="#8c8c8c", linewidth=0.8, zorder=1)
    for row, place in np.argwhere(both):
        look = cell_look(int(place), int(row))
        at = scratch[row, place], tuned[row, place]
        ax.plot(*at, linestyle="none", markersize=4.2, alpha=0.85, **look)
    percent_axis(ax, "x", low, high, most=9)
    percent_axis(ax, "y", low, high, most=9)
    ax.set_aspect("equal")
    ax.set_xlabel("Test score, from scratch (%)")
    ax.set_ylabel("Test score, fine-tuned (%)")
    _cell_keys(figure, table)
    return figure


def _key_inches(table: TransferTable) -> float:
    """Width of the keys: about 16 characters to an inch."""
    columns = [table.datasets, *([table.backbones] if len(table.backbones) > 1 else [])]
    return sum(0.35 + max(len(shortened(name)) for name in names) / 16 for names in columns)


def _cell_keys(figure: Figure, table: TransferTable) -> None:
    """Two keys in one box: colours of the data sets, markers of the backbones."""
    from matplotlib.lines import Line2D

    def mark(dataset: int, backbone: int, **more: Any) -> Line2D:
        return Line2D([], [], linestyle="none", markersize=4.5, **{**cell_look(dataset, backbone), **more})

    grey = {"markerfacecolor": "#4d4d4d", "markeredgecolor": "#4d4d4d"}
    heading = Line2D([], [], linestyle="none")
    marks = [heading, *(mark(k, 0) for k in range(len(table.datasets)))]
    names = ["data set", *(shortened(name) for name in table.datasets)]
    columns = 1
    if len(table.backbones) > 1:
        hollow = [cell_look(0, k)["markerfacecolor"] == "none" for k in range(len(table.backbones))]
        shapes = [
            mark(0, k, **({"markeredgecolor": "#4d4d4d"} if hollow[k] else grey)) for k in range(len(hollow))
        ]
        gap = max(len(table.backbones) - len(table.datasets), 0)
        marks += [heading] * gap + [heading, *shapes]
        names += [" "] * gap + ["backbone", *(shortened(name) for name in table.backbones)]
        columns = 2
        short = len(table.datasets) + 1 + gap - (len(table.backbones) + 1)
        marks, names = marks + [heading] * short, names + [" "] * short
    figure.legend(marks, names, loc="outside right center", ncols=columns, frameon=False, handletextpad=0.2)


def ranking_figure(table: TransferTable, statistics: Mapping[str, Any]) -> Figure | None:
    """Draw each regime's backbones by their mean, in the manner of a critical-difference diagram.

    Filled = not significantly different from the best (raw p); a bar on the right links neighbours no two
    of which differ significantly (p after Holm's correction).
    """
    from matplotlib.figure import Figure

    ranked = [r for r in table.regimes if len(statistics["regimes"][r]["means"]) >= 2]
    if not ranked:
        return None
    most = max(len(statistics["regimes"][r]["means"]) for r in ranked)
    width = max(3.4, 7.0 * len(ranked) / 3 + 0.4)
    figure = Figure(figsize=(width, 1.1 + 0.165 * most), layout="constrained")
    axes = figure.subplots(1, len(ranked), squeeze=False)[0]
    for ax, regime in zip(axes, ranked, strict=True):
        _rank(ax, statistics["regimes"][regime], REGIME_COLOURS[regime])
        ax.set_title(REGIME_NAMES[regime])
        ax.set_xlabel("mean of log odds (%)")
    if any(statistics["regimes"][r]["paired_t_tests"] for r in ranked):
        words = "filled: not significantly different from the best; bar: no two differ (Holm)"
        if len(ranked) == 1:
            words = words.replace("; ", "\n")
        figure.supxlabel(words, fontsize=7)
    return figure


def _rank(ax: Axes, part: Mapping[str, Any], colour: str) -> None:
    """One regime, best on top."""
    means = part["means"]
    order = sorted(means, key=lambda name: means[name]["mean_log_odds"])
    ties = part["correlation"]["ties_with_best"] or (order[-1],)
    values = np.array([means[name]["mean_log_odds"] for name in order])
    bars = np.array([means[name]["bar"] or 0.0 for name in order])
    for row, name in enumerate(order):
        face = colour if name in ties else "white"
        ax.hlines(row, values[row] - bars[row], values[row] + bars[row], color=colour, linewidth=1.0)
        ax.plot(values[row], row, marker="o", markersize=4.5, color=colour, markerfacecolor=face)
    ax.set_yticks(range(len(order)), labels=[shortened(name) for name in order], fontsize=6)
    ax.set_ylim(-0.7, len(order) - 0.3)
    low, high = padded([values - bars, values + bars], least=0.05)
    ends: list[int] = []  # the row at which each lane of bars is taken up to
    step = 0.035 * (high - low)
    for bottom, top in _linked(order, part["paired_t_tests"]):
        lane = next((k for k, end in enumerate(ends) if end < bottom), len(ends))
        ends[lane : lane + 1] = [top]
        ax.vlines(high + step * lane, bottom - 0.25, top + 0.25, color="#1a1a1a", linewidth=1.6)
    percent_axis(ax, "x", low, high + step * len(ends), most=5)


def _linked(order: Sequence[str], tests: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The longest runs of neighbours no two of which differ significantly after Holm's correction."""
    apart = {
        frozenset((t["first"], t["second"])): (
            abs(t["mean"]) > SAME if t["p_holm"] is None else t["p_holm"] <= LEVEL
        )
        for t in tests
    }
    runs: list[tuple[int, int]] = []
    for bottom in range(len(order)):
        top = bottom
        while top + 1 < len(order) and not any(
            apart.get(frozenset((order[k], order[top + 1])), True) for k in range(bottom, top + 1)
        ):
            top += 1
        if top > bottom and not (runs and runs[-1][1] >= top):
            runs.append((bottom, top))
    return runs
