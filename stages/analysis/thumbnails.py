"""Small grey pictures: made, resized, cut and compared. Pillow is loaded when the first one is made."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

Grey = NDArray[np.float64]
"""(height, width), 0 = black, 1 = white."""

COARSE, FINE = 48, 144
"""Longer side of the two sizes, pixels."""
SHORTEST = 8
"""Shorter side at least, pixels."""
FLAT = 0.01
"""Standard deviation of grey values, 2.5 of 255, below which a picture has nothing to be recognised by."""


@dataclass(frozen=True)
class Thumbnail:
    """One image, small and grey."""

    coarse: Grey
    """Longer side `COARSE`."""
    fine: Grey
    """Longer side `FINE`."""
    square: Grey
    """`COARSE` x `COARSE`, whatever the image's shape was."""

    def mirrored(self) -> Thumbnail:
        """Return it with left and right exchanged."""
        return Thumbnail(self.coarse[:, ::-1], self.fine[:, ::-1], self.square[:, ::-1])


def thumbnail(image: Image.Image) -> Thumbnail:
    """Return an image small and grey.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode that Pillow turns into grey.

    Raises
    ------
    MissingExtraError
        Pillow is not installed.
    """
    try:
        from PIL.Image import Resampling
    except ModuleNotFoundError as problem:
        raise MissingExtraError("Pillow", "vision") from problem
    grey = image.convert("L")

    def small(width: int, height: int) -> Grey:
        return np.asarray(grey.resize((width, height), Resampling.BOX)) / 255.0

    def kept(side: int) -> Grey:
        scale = side / max(grey.size)
        return small(max(SHORTEST, round(grey.width * scale)), max(SHORTEST, round(grey.height * scale)))

    return Thumbnail(kept(COARSE), kept(FINE), small(COARSE, COARSE))


def agreement(a: Grey, b: Grey) -> float:
    """Return Lin's concordance of the grey values of two pictures of one size; 0 where one is flat.

    Pearson's correlation, made smaller by a difference in brightness or contrast: two skies that darken towards
    a side correlate, whatever their greys.

    References
    ----------
    L. I.-K. Lin, "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45 (1989).
    """
    x, y = a - a.mean(), b - b.mean()
    if min(x.std(), y.std()) < FLAT:
        return 0.0
    spread = (x * x).sum() + (y * y).sum() + a.size * (a.mean() - b.mean()) ** 2
    return float(2 * (x * y).sum() / spread)


def cut(picture: Grey, window: tuple[float, float, float, float], height: int, width: int) -> Grey:
    """Return a window of a picture at another size, every pixel the mean of the area it covers.

    Parameters
    ----------
    picture
        (H, W).
    window
        Top, left, height and width in pixels of the picture, fractions allowed; within the picture.
    height, width
        Of the result.
    """
    top, left, tall, wide = window
    rows = _areas(picture.shape[0], top, tall, height)
    columns = _areas(picture.shape[1], left, wide, width)
    return np.asarray(rows @ picture @ columns.T)


@functools.lru_cache(maxsize=1024)  # the same few sizes come again with every pair; 50 KB each at most
def _areas(before: int, start: float, extent: float, after: int) -> Grey:
    """Return (after, before) shares by which old pixels along one side make new ones."""
    edges = start + np.linspace(0, extent, after + 1)
    low = np.maximum(edges[:-1, None], np.arange(before))
    high = np.minimum(edges[1:, None], np.arange(1, before + 1))
    return np.asarray(np.maximum(high - low, 0) * (after / extent))
