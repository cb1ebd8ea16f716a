"""Figures of the paper's other experiments: curves per data set, and settings beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.records import Regime
from stages.report.style import RC, REGIME_COLOURS, columns_of, padded, percent_axis, require_matplotlib, save
from stages.report.text import REGIME_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_TICKS = 6
"""Of an axis of steps or examples."""


@dataclass(frozen=True)
class ExtraFigure:
    """A figure of another experiment, drawn, with the words that go with it."""

    stem: str
    """File name without suffix."""
    title: str
    caption: str
    pdf: bytes
    png: bytes


@dataclass(frozen=True)
class RegimeCurve:
    """One regime's scores along an axis."""

    regime: Regime
    x: tuple[float, ...]
    """Examples a class, or steps; ascending."""
    y: tuple[float, ...]
    """Log odds."""
    error: tuple[float, ...]
    """Standard error of each; NaN where there is none."""
    mark: float | None = None
    """Where on the axis something happens to this curve: a dotted line of its colour."""


@dataclass(frozen=True)
class CurvePanel:
    """One data set through one backbone."""

    title: str
    curves: tuple[RegimeCurve, ...]
    marks: tuple[float, ...] = ()
    """Where curves cross: dotted lines in grey."""


def curves_figure(
    stem: str, title: str, caption: str, panels: Sequence[CurvePanel], *, x_label: str
) -> ExtraFigure | None:
    """Draw one panel per data set, the axis below logarithmic, the other in log odds that read as percent.

    Parameters
    ----------
    stem, title, caption : str
        Of the figure.
    panels : sequence of CurvePanel
    x_label : str
        The ticks stand at the numbers studied.

    Returns
    -------
    ExtraFigure or None
        None where there is no point to draw.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if any(curve.x for curve in panel.curves)]
    if not shown:
        return None
    with rc_context(RC):
        columns = columns_of(len(shown))
        rows = math.ceil(len(shown) / columns)
        size = (max(3.4, min(7.2, 2.4 * columns)), 2.1 * rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for place, ax in enumerate(axes.flat):
            if place < len(shown):
                _draw(ax, shown[place])
            else:
                ax.set_axis_off()
        figure.supxlabel(x_label, fontsize=8)
        figure.supylabel("Test score (%)", fontsize=8)
        _key(figure, [curve.regime for panel in shown for curve in panel.curves])
        pdf, png = save(figure)
    return ExtraFigure(stem, title, caption, pdf, png)


def _draw(ax: Axes, panel: CurvePanel) -> None:
    """Draw the curves of one panel."""
    ax.set_xscale("log")
    ends = [v + s * (0.0 if math.isnan(e) else e) for c in panel.curves
            for v, e in zip(c.y, c.error, strict=True) for s in (-1, 1)]  # fmt: skip
    for curve in panel.curves:
        colour = REGIME_COLOURS[curve.regime]
        bars = [0.0 if math.isnan(e) else e for e in curve.error]
        ax.errorbar(curve.x, curve.y, yerr=bars, color=colour, marker="o", markersize=3, elinewidth=0.8)
        if curve.mark is not None:
            ax.axvline(curve.mark, color=colour, linestyle=":", linewidth=0.9)
    for at in panel.marks:
        ax.axvline(at, color="#8a8a8a", linestyle=":", linewidth=0.9)
    percent_axis(ax, "y", *padded(ends))
    numbers = sorted({x for curve in panel.curves for x in curve.x})
    shown = numbers[:: math.ceil(len(numbers) / MOST_TICKS)]
    # Plain digits: the library's own labels of a logarithmic axis are mathematics, which is not read here.
    ax.set_xticks(shown, labels=[f"{n:g}" for n in shown])
    ax.minorticks_off()
    ax.set_title(panel.title)


def _key(figure: Figure, regimes: Sequence[Regime]) -> None:
    """Say which colour is which regime, once for all panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=REGIME_COLOURS[regime], marker="o", markersize=3, label=REGIME_NAMES[regime])
        for regime in REGIME_NAMES
        if regime in regimes
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
