"""How figures look: colours that colour-blind readers tell apart, logit axes in percent, PDF and PNG."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import MissingExtraError
from stages.report.logodds import fraction, log_odds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
"""Okabe and Ito (2008), without yellow and with grey for black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
CELL_COLOURS = (
    *COLOURS, "#882255", "#999933", "#332288", "#b2df8a", "#8b4513",
)  # fmt: skip
"""Of data sets where the marker is taken: twelve, the last five after Tol's and Brewer's sets."""
CELL_MARKERS = (*MARKERS, "<", ">", "p", "h")
REGIME_COLOURS = {"linear_probe": "#0072b2", "fine_tune": "#d55e00", "from_scratch": "#4d4d4d"}

RC: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
"""For a column of a two-column paper; no name is ever read as mathematics."""

PNG_DPI = 200

_STEPS = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_TAILS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def require_matplotlib() -> None:
    """Raise the typed error where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error


def look(index: int) -> dict[str, Any]:
    """Return colour and marker of the index-th backbone: 56 differ, neighbours differ in both."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def cell_look(dataset: int, backbone: int) -> dict[str, Any]:
    """Return the look of one cell's point: colour of the data set, marker of the backbone.

    Twelve colours; twelve markers, hollow for the second twelve backbones.
    """
    colour = CELL_COLOURS[dataset % len(CELL_COLOURS)]
    hollow = backbone // len(CELL_MARKERS) % 2 == 1
    return {
        "marker": CELL_MARKERS[backbone % len(CELL_MARKERS)],
        "markerfacecolor": "none" if hollow else colour,
        "markeredgecolor": colour,
        "markeredgewidth": 0.9 if hollow else 0.0,
    }


def percent_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round percentages whose log odds lie in [low, high], at most about ``most``.

    One step throughout where that leaves three or more of them apart, the coarsest such; else a mixture.
    """
    gap = (high - low) / most
    for step in _STEPS:
        regular = [float(p) for p in np.arange(step, 100 - step / 2, step).round(4)]
        inside = [(p, at) for p in regular if low <= (at := float(log_odds(p / 100))) <= high]
        if len(inside) >= 3 and min(np.diff([at for _, at in inside])) >= gap:
            return _with_tails([p for p, _ in inside], low, high, gap)
    return _mixed_ticks(low, high, gap, most)


def _with_tails(ticks: list[float], low: float, high: float, gap: float) -> list[float]:
    """The ticks, and beyond their ends the round percentages near 0 and 100 that are as far apart."""
    kept = list(ticks)
    for percent in sorted([*_TAILS, *(100 - t for t in _TAILS)], key=lambda p: abs(p - 50)):
        at = float(log_odds(percent / 100))
        outside = not ticks[0] <= percent <= ticks[-1]
        if outside and low <= at <= high and all(abs(at - float(log_odds(k / 100))) >= gap for k in kept):
            kept.append(percent)
    return sorted(kept)


def _mixed_ticks(low: float, high: float, gap: float, most: int) -> list[float]:
    """Round percentages of several steps, for ranges over which log odds bend too much for one step."""
    kept: list[float] = []
    for step in _STEPS:
        inner = np.arange(step, 100 - step / 2, step)
        candidates = [*inner, *_TAILS, *(100 - t for t in _TAILS)] if step == _STEPS[0] else list(inner)
        for percent in sorted(candidates, key=lambda p: abs(p - 50)):
            at = float(log_odds(percent / 100))
            near = any(abs(at - float(log_odds(k / 100))) < gap for k in kept)
            if low <= at <= high and not near:
                kept.append(round(float(percent), 4))
        if len(kept) >= max(3, most // 2):
            break
    return sorted(kept)


def percent_axis(axes: Axes, which: str, low: float, high: float, most: int = 6) -> None:
    """Give an axis in log odds its limits, and ticks that read as percent."""
    ticks = percent_ticks(low, high, most)
    at = [float(x) for x in log_odds(np.array(ticks) / 100)]
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_ticks(at, labels=[f"{tick:g}" for tick in ticks])


def columns_of(panels: int) -> int:
    """Return how many panels of a figure stand beside each other: four at most, few places left empty."""
    return panels if panels <= 4 else (3 if panels in (5, 6, 9) else 4)


def padded(values: Any, share: float = 0.08, least: float = 0.1) -> tuple[float, float]:
    """Return the range of the finite values with a margin on both sides."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    pad = max((high - low) * share, least)
    return low - pad, high + pad


def shortened(name: str, most: int = 26) -> str:
    """Return a name that leaves room for the plot: its beginning and its end.

    Examples
    --------
    >>> shortened("vit_large_patch14_clip_336.openai_ft_in12k_in1k")
    'vit_large_patch1...2k_in1k'
    """
    kept = (
        name if len(name) <= most else f"{name[: math.ceil(most * 0.6)]}...{name[-math.floor(most * 0.3) :]}"
    )
    return f" {kept}" if kept.startswith("_") else kept  # matplotlib leaves such names out of keys


def as_percent(x: float) -> float:
    """Return log odds as percent."""
    return float(100 * fraction(x))


def save(figure: Figure) -> tuple[bytes, bytes]:
    """Return (PDF, PNG) without dates, so that the same table gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    figure.set_dpi(PNG_DPI)  # text is measured as it will be drawn
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")  # laid out once: every drawing would do it again
    pdf, png = io.BytesIO(), io.BytesIO()
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    # The canvases' own methods draw once each, where savefig draws twice.
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
    FigureCanvasPdf(figure).print_pdf(pdf, metadata=undated)  # type: ignore[no-untyped-call]
    return pdf.getvalue(), png.getvalue()
