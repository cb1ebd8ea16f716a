"""Heat map of the scores, and the regimes beside each other on every data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.records import Regime
from stages.report.logodds import log_odds
from stages.report.style import REGIME_COLOURS, padded, percent_axis, shortened
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES, cell_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def heat_map(table: TransferTable, regime: Regime) -> Figure:
    """Draw backbones x data sets: test score in percent, colour = log odds minus the data set's mean.

    Backbones and data sets that nobody planned in this regime are left out.
    """
    from matplotlib.figure import Figure

    rows, columns = table.in_regime(regime)
    wide = table.matrix(regime).reindex(index=list(rows), columns=list(columns))
    spread = (wide - wide.mean(axis=0)).to_numpy()
    size = (1.9 + 0.56 * len(columns) + 0.9, 1.0 + 0.24 * len(rows))
    figure = Figure(figsize=(max(size[0], 3.4), max(size[1], 1.6)), layout="constrained")
    ax = figure.subplots()
    ax.grid(visible=False)
    ax.set_facecolor("#f0f0f0")
    finite = spread[np.isfinite(spread)]
    limit = max(float(np.abs(finite).max()), 0.05) if finite.size else 1.0
    image = ax.imshow(np.ma.masked_invalid(spread), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    _write_cells(ax, table, regime, spread / limit)
    ax.set_xticks(range(len(columns)), labels=[shortened(name) for name in columns], rotation=35, ha="right")
    ax.set_yticks(range(len(rows)), labels=[shortened(name, 40) for name in rows])
    ax.tick_params(length=0)
    ax.set_title(f"{REGIME_NAMES[regime]}: test score (%)")
    for spine in ax.spines.values():
        spine.set_visible(False)
    if finite.size:
        bar = figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02)
        bar.set_label("log odds minus the\ndata set's mean", fontsize=7)
        bar.outline.set_visible(False)
    return figure


def _write_cells(ax: Axes, table: TransferTable, regime: Regime, shade: Any) -> None:
    """Write each cell's score, or the word for what it lacks."""
    cells = table.cells
    rows, columns = table.in_regime(regime)
    for cell in cells[cells["regime"] == regime].to_dict("records"):
        if cell["backbone"] not in rows or cell["dataset"] not in columns:
            continue
        row, column = rows.index(cell["backbone"]), columns.index(cell["dataset"])
        dark = math.isfinite(shade[row, column]) and abs(shade[row, column]) > 0.62
        words = cell_text(cell["value"], cell["status"], cell["clamped"])
        size = 6.5 if cell["status"] in ("complete", "partial") else 5.5
        colour = "white" if dark else "#1a1a1a"
        ax.text(column, row, words, ha="center", va="center", fontsize=size, color=colour)


def regime_figure(
    table: TransferTable, state_of_the_art: Mapping[str, float] = MappingProxyType({})
) -> Figure | None:
    """Draw each data set's scores under every regime: points are backbones, the bar is their mean.

    A data set whose best published score is given has a dotted line there (the paper's Fig. 6).
    """
    from matplotlib.figure import Figure

    if len(table.regimes) < 2 or table.cells["value"].isna().all():
        return None
    width = min(7.0, max(3.4, 0.62 * len(table.datasets) + 0.9))
    figure = Figure(figsize=(width, 2.9), layout="constrained")
    ax = figure.subplots()
    step = 0.8 / len(table.regimes)
    values = []
    for place, regime in enumerate(table.regimes):
        wide = table.matrix(regime).to_numpy()
        values.append(wide)
        shift = (place - (len(table.regimes) - 1) / 2) * step
        _one_regime(ax, wide, shift, step, regime)
    values.append(_published(ax, table, state_of_the_art))
    ax.set_xticks(
        range(len(table.datasets)),
        labels=[shortened(name) for name in table.datasets],
        rotation=35,
        ha="right",
    )
    ax.grid(visible=False, axis="x")
    ax.set_xlim(-0.55, len(table.datasets) - 0.45)
    percent_axis(ax, "y", *padded(np.concatenate([v.ravel() for v in values])), most=7)
    ax.set_ylabel("Test score (%)")
    figure.legend(loc="outside upper center", ncols=len(table.regimes) + 1, frameon=False)
    return figure


def _one_regime(ax: Axes, wide: Any, shift: float, step: float, regime: Regime) -> None:
    """The points and means of one regime; its name goes into the key with its first mean."""
    colour = REGIME_COLOURS[regime]
    label = REGIME_NAMES[regime]
    for column in range(wide.shape[1]):
        found = wide[np.isfinite(wide[:, column]), column]
        if not found.size:
            continue
        at = column + shift
        jitter = np.linspace(-0.22, 0.22, len(found)) * step if len(found) > 1 else np.zeros(1)
        ax.scatter(at + jitter, found, s=7, color=colour, alpha=0.55, linewidths=0)
        ax.hlines(found.mean(), at - 0.42 * step, at + 0.42 * step, color=colour, linewidth=1.8, label=label)
        label = "_drawn"  # matplotlib keeps names with an underscore out of the key


def _published(ax: Axes, table: TransferTable, scores: Mapping[str, float]) -> Any:
    """Draw the best published scores and return their log odds."""
    places = [k for k, name in enumerate(table.datasets) if name in scores]
    odds = log_odds(np.array([scores[table.datasets[k]] for k in places]))
    if places:
        left, right = np.array(places) - 0.45, np.array(places) + 0.45
        ax.hlines(odds, left, right, color="#1a1a1a", linewidth=1.2, linestyle=":", label="state of the art")
    return odds
