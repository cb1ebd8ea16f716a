"""Scatter panels as plain geometry, for the page's inline SVG: the template only writes them down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.records import Regime
from stages.report.draw_transfer import Point, dataset_points, mean_points
from stages.report.logodds import fraction, log_odds
from stages.report.style import as_percent, padded, percent_ticks
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES, r_text

MARGIN = (40.0, 8.0, 10.0, 34.0)
"""Left, top, right, bottom, in the panel's own units."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """One backbone in one panel."""

    x: float
    y: float
    index: int
    """Of the backbone in the table: colour, shape and what is followed."""
    words: str
    """What hovering says."""
    bar: tuple[float, float] | None = None
    """Ends of the error bar."""
    ties: bool = False
    """Not significantly different from the best of the panel."""


@dataclass(frozen=True)
class Panel:
    """One scatter plot, y downwards as SVG has it."""

    title: str
    subtitle: str
    width: float
    height: float
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    line: tuple[float, float, float, float] | None
    band: str
    """Of the regression line: an SVG path, empty where there is none."""
    x_label: str
    y_label: str

    @property
    def left(self) -> float:
        """Where the y axis stands."""
        return MARGIN[0]

    @property
    def right(self) -> float:
        """Where the plot ends."""
        return self.width - MARGIN[2]

    @property
    def top(self) -> float:
        """Where the plot begins."""
        return MARGIN[1]

    @property
    def bottom(self) -> float:
        """Where the x axis stands."""
        return self.height - MARGIN[3]


def mean_panels(table: TransferTable, statistics: Mapping[str, Any]) -> list[Panel]:
    """Return one panel per regime: mean over data sets against ImageNet top-1, on common axes."""
    points = {regime: mean_points(table, statistics, regime) for regime in table.regimes}
    every = [point for found in points.values() for point in found]
    ends = [p[3] + sign * _zero(p[4]) for p in every for sign in (-1, 1)]
    ranges = padded([p[2] for p in every]), padded(ends)
    return [
        _panel(
            REGIME_NAMES[regime],
            statistics["regimes"][regime]["correlation"],
            found,
            ranges,
            (340.0, 280.0),
            ("ImageNet top-1 (%)", "transfer, mean of log odds (%)"),
        )
        for regime, found in points.items()
        if found
    ]


def dataset_panels(table: TransferTable, statistics: Mapping[str, Any], regime: Regime) -> list[Panel]:
    """Return one panel per data set of a regime, each with its own range of scores."""
    points = {name: dataset_points(table, regime, name) for name in table.datasets}
    x_range = padded([p[2] for found in points.values() for p in found])
    correlations = statistics["regimes"][regime]["per_dataset"]
    return [
        _panel(
            name,
            correlations[name],
            found,
            (x_range, padded([p[3] for p in found])),
            (250.0, 200.0),
            ("ImageNet top-1 (%)", ""),
        )
        for name, found in points.items()
        if found
    ]


def _panel(
    title: str,
    correlation: Mapping[str, Any],
    points: Sequence[Point],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    size: tuple[float, float],
    labels: tuple[str, str],
) -> Panel:
    """Points in log odds as marks in the panel's own units."""
    (x0, x1), (y0, y1) = ranges
    across, down = size[0] - MARGIN[0] - MARGIN[2], size[1] - MARGIN[1] - MARGIN[3]

    def place_x(x: float) -> float:
        return round(MARGIN[0] + (x - x0) / (x1 - x0) * across, 1)

    def place_y(y: float) -> float:
        return round(MARGIN[1] + (y1 - y) / (y1 - y0) * down, 1)

    return Panel(
        title=title,
        subtitle=r_text(correlation),
        width=size[0],
        height=size[1],
        marks=tuple(
            Mark(
                place_x(x),
                place_y(y),
                index,
                _words(title, name, x, y, bar),
                None if math.isnan(bar) else (place_y(y - bar), place_y(y + bar)),
                name in (correlation.get("ties_with_best") or ()),
            )
            for index, name, x, y, bar in points
        ),
        x_ticks=tuple(Tick(place_x(_logit(t)), f"{t:g}") for t in percent_ticks(x0, x1, 5)),
        y_ticks=tuple(Tick(place_y(_logit(t)), f"{t:g}") for t in percent_ticks(y0, y1, 6)),
        line=_line(correlation, points, place_x, place_y),
        band=_band(correlation, place_x, place_y),
        x_label=labels[0],
        y_label=labels[1],
    )


def _line(correlation: Mapping[str, Any], points: Sequence[Point], place_x: Any, place_y: Any) -> Any:
    """Ends of the regression line, where r is defined."""
    if correlation["verdict"] != "defined":
        return None
    ends = min(p[2] for p in points), max(p[2] for p in points)
    y = [correlation["intercept"] + correlation["slope"] * x for x in ends]
    return place_x(ends[0]), place_y(y[0]), place_x(ends[1]), place_y(y[1])


def _band(correlation: Mapping[str, Any], place_x: Any, place_y: Any) -> str:
    """The bootstrap band as a closed path: along its lower edge, back along its upper one."""
    if correlation["bootstrap"] is None:
        return ""
    band = correlation["bootstrap"]["band"]
    there = [f"{place_x(x)} {place_y(y)}" for x, y in zip(band["x"], band["low"], strict=True)]
    back = [f"{place_x(x)} {place_y(y)}" for x, y in zip(band["x"], band["high"], strict=True)]
    return f"M{'L'.join([*there, *back[::-1]])}Z"


def _words(panel: str, name: str, x: float, y: float, bar: float) -> str:
    """What hovering a mark says."""
    spread = "" if math.isnan(bar) else f" (bar {as_percent(y - bar):.1f} to {as_percent(y + bar):.1f})"
    return f"{name}, {panel}: {as_percent(y):.1f} %{spread}, ImageNet {100 * float(fraction(x)):.1f} %"


def _logit(percent: float) -> float:
    """Log odds of a percentage."""
    return float(log_odds(percent / 100))


def _zero(value: float) -> float:
    """NaN as zero."""
    return 0.0 if math.isnan(value) else value
