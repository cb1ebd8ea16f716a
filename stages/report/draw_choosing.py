"""What it costs to choose a backbone by a cheap score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.report.draw_experiments import ExtraFigure
from stages.report.style import COLOURS, RC, require_matplotlib, save


@dataclass(frozen=True)
class Regrets:
    """What every score cost, for one thing that it should have predicted."""

    title: str
    points: Mapping[str, tuple[float, ...]]
    """Name of the score, as it is shown, to log odds lost, one a data set."""


def regret_figure(stem: str, title: str, caption: str, panels: Sequence[Regrets]) -> ExtraFigure | None:
    """Draw one panel for each thing predicted: scores down, regret across; None where there is nothing.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not panels:
        return None
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    with rc_context(RC):
        size = (min(7.2, 1.4 + 2.0 * len(panels)), 0.24 * len(names) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, panel in zip(axes, panels, strict=True):
            for row, name in enumerate(names):
                found = np.array(panel.points.get(name, ()))
                if found.size:
                    ax.scatter(
                        found, np.full(len(found), row), s=9, color=COLOURS[0], alpha=0.6, linewidths=0
                    )
                    ax.vlines(found.mean(), row - 0.35, row + 0.35, color=COLOURS[1], linewidth=1.6)
            ax.set_title(panel.title)
            ax.set_xlim(left=min(-0.02, ax.get_xlim()[0]))
        axes[0].set_yticks(range(len(names)), labels=names)
        axes[0].invert_yaxis()
        figure.supxlabel("regret (log odds)", fontsize=8)
        pdf, png = save(figure)
    return ExtraFigure(stem, title, caption, pdf, png)
