"""Maps of features in the plane, several side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.draw_experiments import ExtraFigure
from stages.report.style import CELL_COLOURS, MARKERS, RC, columns_of, require_matplotlib, save


def maps_figure(
    stem: str,
    title: str,
    caption: str,
    points: Sequence[NDArray[np.floating[Any]]],
    titles: Sequence[str],
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
) -> ExtraFigure:
    """Draw one scatter plot for each map, classes in the same colours and markers everywhere.

    Parameters
    ----------
    stem, title, caption : str
        Of the figure.
    points : sequence of ndarray of shape (n, 2)
        Of the same n images.
    titles : sequence of str
        Of the maps.
    labels : ndarray of int, shape (n,)
        Index into ``class_names``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC):
        columns = columns_of(len(points))
        rows = math.ceil(len(points) / columns)
        size = (max(3.4, min(7.2, 3.3 * columns)), 3.0 * rows + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, places, name in zip(axes.flat, points, titles, strict=False):
            for k, label in enumerate(class_names):
                own = places[labels == k]
                ax.scatter(own[:, 0], own[:, 1], s=9, linewidths=0, alpha=0.85, label=label, **_look(k))
            ax.set_title(name)
            ax.set_aspect("equal", "datalim")
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=min(len(names), columns_that_fit(names, size[0])),
            frameon=False,
        )
        pdf, png = save(figure)
    return ExtraFigure(stem, title, caption, pdf, png)


def columns_that_fit(names: Sequence[str], width: float) -> int:
    """Return how many columns of a key fit into a figure of so many inches, at the key's size of type."""
    return max(1, int(width / (0.32 + 0.065 * max(map(len, names)))))


def _look(k: int) -> dict[str, str]:
    """Return colour and marker of a class."""
    count = len(CELL_COLOURS)
    return {"color": CELL_COLOURS[k % count], "marker": MARKERS[k // count % len(MARKERS)]}
