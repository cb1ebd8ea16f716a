"""A sheet of pictures in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.errors import MissingExtraError
from stages.report.draw_experiments import ExtraFigure
from stages.report.style import RC, require_matplotlib, save

PAIRS_A_ROW = 4
SIDE = 160
"""Longest side of a picture on the sheet, pixels."""


@dataclass(frozen=True)
class PicturePair:
    """Two images and what is written above them."""

    first: Path
    second: Path
    words: str


def pairs_figure(stem: str, title: str, caption: str, pairs: Sequence[PicturePair]) -> ExtraFigure:
    """Draw pairs of pictures, four a row.

    Raises
    ------
    MissingExtraError
        matplotlib or Pillow is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC):
        rows = math.ceil(len(pairs) / PAIRS_A_ROW)
        figure = Figure(figsize=(7.2, 1.15 * rows + 0.1), layout="constrained")
        axes = figure.subplots(rows, 2 * PAIRS_A_ROW, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for place, pair in enumerate(pairs):
            row, column = divmod(place, PAIRS_A_ROW)
            left, right = axes[row, 2 * column], axes[row, 2 * column + 1]
            for ax, path in ((left, pair.first), (right, pair.second)):
                ax.imshow(_small(path))
            left.set_title(pair.words, loc="left", fontsize=6.5)
        pdf, png = save(figure)
    return ExtraFigure(stem, title, caption, pdf, png)


def _small(path: Path) -> object:
    """Read a picture, small."""
    try:
        from PIL import Image
    except ModuleNotFoundError as problem:
        raise MissingExtraError("Pillow", "vision") from problem
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return picture
