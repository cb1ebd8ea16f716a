"""Transfer against ImageNet accuracy: the means of every regime, and every data set on its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.records import Regime
from stages.report.logodds import log_odds
from stages.report.style import columns_of, look, padded, percent_axis, shortened
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES, r_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 40
"""Characters of a backbone's name in the key."""
_RING_WORDS = "ring: not sig. different from best"
RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgecolor": "#009e73",
    "markeredgewidth": 1.1,
}
"""Around what is not significantly different from the best."""

Point = tuple[int, str, float, float, float]
"""(index of the backbone, its label, logit ImageNet top-1, log odds of transfer, bar or NaN)."""


def transfer_figure(table: TransferTable, statistics: Mapping[str, Any]) -> Figure | None:
    """Draw mean log odds against ImageNet top-1, one panel per regime; None where nothing can be placed."""
    from matplotlib.figure import Figure

    panels = {regime: mean_points(table, statistics, regime) for regime in table.regimes}
    if not any(panels.values()):
        return None
    width = {1: 3.6, 2: 5.4}.get(len(panels), 7.0)
    figure = Figure(figsize=(width, 2.75 + legend_inches(table, width)), layout="constrained")
    every = [point for points in panels.values() for point in points]
    x_range = padded([p[2] for p in every])
    with_bars = [p[3] + s * (0 if math.isnan(p[4]) else p[4]) for p in every for s in (-1, 1)]
    y_range = padded(with_bars)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (regime, points) in zip(axes, panels.items(), strict=True):
        scatter(ax, points, statistics["regimes"][regime]["correlation"], x_range, y_range)
        if not points:
            words = "no backbone with a score\non every data set"
            ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=7)
        ax.set_title(f"{REGIME_NAMES[regime]}\n{r_text(statistics['regimes'][regime]['correlation'])}")
        ax.set_xlabel("ImageNet top-1 (%)")
    axes[0].set_ylabel("Transfer, mean of log odds (%)")
    drawn = {point[1] for point in every}
    rings = any(statistics["regimes"][regime]["correlation"]["ties_with_best"] for regime in panels)
    legend(figure, [name for name in table.backbones if name in drawn], table, rings)
    return figure


def dataset_figure(table: TransferTable, statistics: Mapping[str, Any], regime: Regime) -> Figure | None:
    """Draw one panel per data set, log odds against ImageNet top-1, each with its own range."""
    from matplotlib.figure import Figure

    panels = {name: dataset_points(table, regime, name) for name in table.datasets}
    panels = {name: points for name, points in panels.items() if points}
    if not panels:
        return None
    across = columns_of(len(panels))
    down = math.ceil(len(panels) / across)
    size = (7.0 * across / 4 if across > 2 else 2.4 * across + 0.4, 1.85 * down + 0.3 + legend_inches(table))
    figure = Figure(figsize=size, layout="constrained")
    x_range = padded([p[2] for points in panels.values() for p in points])
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax, (name, points) in zip(axes, panels.items(), strict=False):
        correlation = statistics["regimes"][regime]["per_dataset"][name]
        scatter(ax, points, correlation, x_range, padded([p[3] for p in points]))
        ax.set_title(f"{shortened(name)}\n{r_text(correlation, brief=True)}")
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(panels) - across) : len(panels)]:
        ax.set_xlabel("ImageNet top-1 (%)")
    figure.supylabel(f"Test score, {REGIME_NAMES[regime]} (%)", fontsize=8)
    drawn = {point[1] for points in panels.values() for point in points}
    per_dataset = statistics["regimes"][regime]["per_dataset"]
    rings = any(per_dataset[name]["ties_with_best"] for name in panels)
    legend(figure, [name for name in table.backbones if name in drawn], table, rings)
    return figure


def mean_points(table: TransferTable, statistics: Mapping[str, Any], regime: str) -> list[Point]:
    """The complete backbones with a known ImageNet top-1 of one regime."""
    means = statistics["regimes"][regime]["means"]
    return [
        (index, name, float(log_odds(top1)), means[name]["mean_log_odds"], _or_nan(means[name]["bar"]))
        for index, name in enumerate(table.backbones)
        if (top1 := table.imagenet_top1[name]) is not None and name in means
    ]


def dataset_points(table: TransferTable, regime: Regime, dataset: str) -> list[Point]:
    """The backbones with a score on one data set and a known ImageNet top-1."""
    column = {str(key): float(value) for key, value in table.matrix(regime)[dataset].items()}
    return [
        (index, name, float(log_odds(top1)), column[name], math.nan)
        for index, name in enumerate(table.backbones)
        if (top1 := table.imagenet_top1[name]) is not None and math.isfinite(column[name])
    ]


def scatter(
    ax: Axes,
    points: list[Point],
    correlation: Mapping[str, Any],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> None:
    """Draw points with bars, the regression line with its band, rings around what ties with the best."""
    ties = correlation.get("ties_with_best") or ()
    for index, _, x, y, bar in points:
        style = look(index)
        if not math.isnan(bar):
            ax.vlines(x, y - bar, y + bar, color=style["color"], linewidth=0.8, zorder=2)
        ax.plot(x, y, linestyle="none", markersize=5, markeredgecolor="white", markeredgewidth=0.4, **style)
    ringed = [(x, y) for _, name, x, y, _ in points if name in ties]
    if ringed:
        ax.plot(*zip(*ringed, strict=True), zorder=3, **RING)
    if correlation["verdict"] == "defined" and points:
        ends = np.array([min(p[2] for p in points), max(p[2] for p in points)])
        line = correlation["intercept"] + correlation["slope"] * ends
        ax.plot(ends, line, color="#4d4d4d", linewidth=0.9, zorder=1)
        band = correlation["bootstrap"]["band"]
        ax.fill_between(band["x"], band["low"], band["high"], color="#4d4d4d", alpha=0.13, linewidth=0)
    percent_axis(ax, "x", *x_range, most=5)
    percent_axis(ax, "y", *y_range, most=8)


def legend(figure: Figure, names: list[str], table: TransferTable, rings: bool = False) -> None:
    """One key for the whole figure, below it."""
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], linestyle="none", markersize=5, **look(table.backbones.index(n))) for n in names]
    if rings:
        marks = [*marks, Line2D([], [], **RING)]
        names = [*names, _RING_WORDS]
    names = [shortened(name, _NAME) for name in names]
    columns = _legend_columns(table, float(figure.get_size_inches()[0]))
    figure.legend(marks, names, loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.2)


def _legend_columns(table: TransferTable, width: float = 7.0) -> int:
    """How many names fit beside each other: about 17 characters to an inch, five of them for the mark."""
    lengths = [len(shortened(name, _NAME)) + 5 for name in table.backbones]
    room = int(17 * width)
    if sum(lengths) + len(_RING_WORDS) + 5 <= room:
        return len(lengths) + 1
    return max(1, min(len(lengths), room // max(lengths, default=room)))


def legend_inches(table: TransferTable, width: float = 7.0) -> float:
    """Height of the key, the line for the rings included."""
    return 0.16 * math.ceil((len(table.backbones) + 1) / _legend_columns(table, width)) + 0.05


def _or_nan(value: float | None) -> float:
    """None, which JSON has, as NaN, which arithmetic has."""
    return math.nan if value is None else value
