"""Every figure of the report, as PDF for the paper and PNG for the screen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stages.report.draw_cells import against_scratch, ranking_figure
from stages.report.draw_fits import ProbePath, TrainingCurve, curve_figure, path_figure
from stages.report.draw_scores import heat_map, regime_figure
from stages.report.draw_transfer import dataset_figure, transfer_figure
from stages.report.style import RC, require_matplotlib, save
from stages.report.table import TransferTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render_figures(
    table: TransferTable,
    statistics: Mapping[str, Any],
    *,
    paths: Sequence[ProbePath] = (),
    curves: Sequence[TrainingCurve] = (),
    state_of_the_art: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, bytes]:
    """Draw every figure that the table has numbers for.

    Parameters
    ----------
    table : TransferTable
    statistics : mapping
        What :func:`stages.report.statistics.statistics` made of it.

    paths : sequence of ProbePath
        The probes' selections, for the figure of the regularisation paths.
    curves : sequence of TrainingCurve
        The losses of the final training runs.
    state_of_the_art : mapping of str to float, optional
        Best published score of a data set, a fraction: a line in the figure of the regimes.

    Returns
    -------
    dict of str to bytes
        File name to content: ``transfer``, ``regimes``, ``fine_tune_against_scratch``, ``ranking``,
        ``datasets_REGIME``, ``heat_map_REGIME``, ``regularisation_paths``, ``training_REGIME``,
        each as ``.pdf`` and ``.png``. A figure without a point to draw is left out.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context

    files: dict[str, bytes] = {}
    with rc_context(RC), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the page and the tables show it.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        fits = _fits(table, paths, curves)
        for name, draw in [*_drawings(table, statistics, state_of_the_art), *fits]:
            figure = draw()
            if figure is not None:
                files[f"{name}.pdf"], files[f"{name}.png"] = save(figure)
    return files


def _drawings(
    table: TransferTable, statistics: Mapping[str, Any], state_of_the_art: Mapping[str, float]
) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """Name and drawing of each figure, in the order of the report."""
    if not table.backbones:
        return
    yield "transfer", partial(transfer_figure, table, statistics)
    yield "regimes", partial(regime_figure, table, state_of_the_art)
    yield "fine_tune_against_scratch", partial(against_scratch, table)
    yield "ranking", partial(ranking_figure, table, statistics)
    for regime in table.regimes:
        yield f"datasets_{regime}", partial(dataset_figure, table, statistics, regime)
        yield f"heat_map_{regime}", partial(heat_map, table, regime)


def _fits(
    table: TransferTable, paths: Sequence[ProbePath], curves: Sequence[TrainingCurve]
) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """Name and drawing of the figures of single fits."""
    yield "regularisation_paths", partial(path_figure, table, paths)
    for regime in table.regimes:
        own = [curve for curve in curves if curve.regime == regime]
        yield f"training_{regime}", partial(curve_figure, table, own)
