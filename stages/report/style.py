"""How figures look: colours that colour-blind readers tell apart, logit axes in percent, PDF and PNG."""

from __future__ import annotations

import io
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


def percent_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round percentages whose log odds lie in [low, high], coarse first, at most about ``most``."""
    gap = (high - low) / most
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


def padded(values: Any, share: float = 0.08, least: float = 0.1) -> tuple[float, float]:
    """Return the range of the finite values with a margin on both sides."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    pad = max((high - low) * share, least)
    return low - pad, high + pad


def as_percent(x: float) -> float:
    """Return log odds as percent."""
    return float(100 * fraction(x))


def save(figure: Figure) -> tuple[bytes, bytes]:
    """Return (PDF, PNG) without dates, so that the same table gives the same bytes."""
    figure.set_dpi(PNG_DPI)  # text is measured as it will be drawn
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: the layout takes most of the time
    pdf, png = io.BytesIO(), io.BytesIO()
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    figure.savefig(pdf, format="pdf", metadata=undated)
    figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return pdf.getvalue(), png.getvalue()
