"""What selection and training saw: the regularisation path of every probe, the loss of every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stages.records import CurvePoint, Regime, SelectionRow
from stages.report.draw_transfer import legend, legend_inches
from stages.report.style import columns_of, look, shortened
from stages.report.table import TransferTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ProbePath:
    """One probe's selection."""

    backbone: str
    """Label: the name, or name@variant."""
    dataset: str
    selection: tuple[SelectionRow, ...]
    chosen: float
    """l2_lambda of the refit."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn on a logarithmic axis: ValueError."""
        strengths = [self.chosen, *(row.l2_lambda for row in self.selection)]
        if not self.selection or not all(math.isfinite(x) and x > 0 for x in strengths):
            raise ValueError("the selection needs positive lambdas")
        if not all(math.isfinite(row.value) for row in self.selection):
            raise ValueError("a value of the selection is not finite")


@dataclass(frozen=True)
class TrainingCurve:
    """One run's loss."""

    backbone: str
    dataset: str
    regime: Regime
    points: tuple[CurvePoint, ...]

    def __post_init__(self) -> None:
        """Refuse steps and losses that are no numbers: TypeError. Infinite losses are left out of the drawing."""
        if not all(isinstance(x, int | float) for p in self.points for x in (p.loss, p.step)):
            raise TypeError("a step or loss of the curve is no number")


_SMOOTHED = 20
"""Points from which on a curve is drawn as a running mean."""

Item = TypeVar("Item", ProbePath, TrainingCurve)


def path_figure(table: TransferTable, paths: Sequence[ProbePath]) -> Figure | None:
    """Draw selection score against lambda, one panel per data set.

    The mark stands at the chosen lambda, a cross at a fit that missed its tolerance.
    """

    def draw(ax: Axes, path: ProbePath) -> None:
        colour = look(table.backbones.index(path.backbone))["color"]
        rows = sorted(path.selection, key=lambda row: row.l2_lambda)
        x, y = [row.l2_lambda for row in rows], [100 * row.value for row in rows]
        ax.plot(x, y, color=colour, linewidth=0.8)
        lost = [(a, b) for a, b, row in zip(x, y, rows, strict=True) if not row.converged]
        if lost:
            ax.plot(*zip(*lost, strict=True), linestyle="none", marker="x", markersize=3, color=colour)
        best = min(rows, key=lambda row: abs(math.log(row.l2_lambda / path.chosen)))
        ax.plot(path.chosen, 100 * best.value, markersize=5, **look(table.backbones.index(path.backbone)))
        _logarithmic(ax, "x")

    labels = ("lambda", "Score in selection (%)")
    return _small_multiples(table, paths, draw, labels)


def curve_figure(table: TransferTable, curves: Sequence[TrainingCurve]) -> Figure | None:
    """Draw the training loss of one regime's final runs, one panel per data set.

    A curve of twenty points and more is drawn as its running mean over a tenth of them: single batches are
    noisy, and curves of several backbones would hide each other.
    """

    def draw(ax: Axes, curve: TrainingCurve) -> None:
        finite = [point for point in curve.points if math.isfinite(point.loss) and point.loss > 0]
        style = look(table.backbones.index(curve.backbone))
        steps, losses = [p.step for p in finite], running_mean([p.loss for p in finite])
        ax.plot(steps, losses, linewidth=0.8, markersize=4, markevery=[-1] if finite else None, **style)
        _logarithmic(ax, "y")

    return _small_multiples(table, curves, draw, ("step", "Training loss"))


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the mean over a tenth of the values around each, fewer at the ends; short lists as they are.

    Examples
    --------
    >>> running_mean([4.0, 2.0])
    [4.0, 2.0]
    >>> [round(v, 2) for v in running_mean([1.0, 3.0] * 15)[10:13]]
    [2.33, 1.67, 2.33]
    """
    if len(values) < _SMOOTHED:
        return list(values)
    reach = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    last = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return [float(v) for v in (sums[last] - sums[first]) / (last - first)]


def _logarithmic(ax: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at few places: powers of ten, more on short ranges."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    decades = math.log10(high / low) if 0 < low < high else math.inf
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 0.8 else (1.0, 2.0, 5.0) if decades < 1.7 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8 if len(subs) > 1 else 5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _small_multiples(
    table: TransferTable,
    items: Sequence[Item],
    draw: Callable[[Axes, Item], None],
    labels: tuple[str, str],
) -> Figure | None:
    """One panel per data set with something to draw; None where there is none."""
    from matplotlib.figure import Figure

    kept = [item for item in items if item.backbone in table.backbones]
    names = [name for name in table.datasets if any(item.dataset == name for item in kept)]
    if not names:
        return None
    across = columns_of(len(names))
    down = math.ceil(len(names) / across)
    width = 7.0 * across / 4 if across > 2 else 2.4 * across + 0.4
    height = 1.75 * down + 0.3 + legend_inches(table, width)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = np.ravel(figure.subplots(down, across, squeeze=False))
    for ax, name in zip(axes, names, strict=False):
        for item in kept:
            if item.dataset == name:
                draw(ax, item)
        ax.set_title(shortened(name))
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(names) - across) : len(names)]:
        ax.set_xlabel(labels[0])
    figure.supylabel(labels[1], fontsize=8)
    legend(figure, [name for name in table.backbones if any(i.backbone == name for i in kept)], table)
    return figure
