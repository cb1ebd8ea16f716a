"""Training settings of networks beside each other: features, fine-tuned, source accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.report.draw_experiments import ExtraFigure
from stages.report.style import RC, look, padded, percent_axis, require_matplotlib, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {"linear_probe": "linear probe", "fine_tune": "fine-tuned", "source": "source accuracy"}


@dataclass(frozen=True)
class SettingPoint:
    """One network under one setting."""

    network: str
    place: int
    """Of the setting in the order."""
    quantity: str
    """"linear_probe", "fine_tune" or "source"."""
    value: float
    """Log odds."""
    interval: tuple[float, float] | None


def settings_figure(
    stem: str, title: str, caption: str, points: Sequence[SettingPoint], settings: Sequence[str]
) -> ExtraFigure | None:
    """Draw one panel for each quantity, a line for each network (the paper's Figs. 3 and 5).

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [name for name in _TITLES if any(point.quantity == name for point in points)]
    if not shown:
        return None
    networks = list(dict.fromkeys(point.network for point in points))
    with rc_context(RC):
        figure = Figure(figsize=(min(7.2, 2.5 * len(shown) + 0.4), 3.0), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for ax, quantity in zip(axes, shown, strict=True):
            _panel(ax, [point for point in points if point.quantity == quantity], networks)
            ax.set_xticks(range(len(settings)), labels=settings, rotation=40, ha="right")
            ax.set_xlim(-0.4, len(settings) - 0.6)
            ax.set_title(_TITLES[quantity])
        axes[0].set_ylabel("%, logit axis")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(names)), frameon=False)
        pdf, png = save(figure)
    return ExtraFigure(stem, title, caption, pdf, png)


def _panel(ax: Axes, points: Sequence[SettingPoint], networks: Sequence[str]) -> None:
    """Draw the networks of one panel."""
    for index, network in enumerate(networks):
        own = sorted((p for p in points if p.network == network), key=lambda p: p.place)
        bars = [(p.value - p.interval[0], p.interval[1] - p.value) if p.interval else (0, 0) for p in own]
        ax.errorbar(
            [p.place for p in own],
            [p.value for p in own],
            yerr=[[low for low, _ in bars], [high for _, high in bars]],
            label=network,
            markersize=4,
            elinewidth=0.8,
            **look(index),
        )
    ends = [end for p in points for end in (p.interval or (p.value, p.value))]
    percent_axis(ax, "y", *padded(ends))
