"""Random resized crop and horizontal flip, the protocol's only augmentation (grade M)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ATTEMPTS = 10
"""Draws of a rectangle before the central one is taken, as in torchvision."""

DRAWS = 4 * ATTEMPTS + 1
"""Uniform numbers that one image uses up, whatever its size."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of an image, in pixels, perhaps mirrored."""

    left: int
    top: int
    width: int
    height: int
    flip: bool = False


def crop_from(
    draws: NDArray[np.float64],
    size: tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (0.75, 4 / 3),
    flip: bool = True,
) -> Crop:
    """Turn uniform numbers into a crop: its share of the area uniform, its log aspect ratio uniform.

    Parameters
    ----------
    draws : ndarray, (DRAWS,)
        Uniform in [0, 1).
    size : (int, int)
        Width and height of the image, pixels.
    scale, ratio : (float, float)
        Ranges of the share of the area and of width / height.
    flip : bool
        Whether to mirror with probability 1/2.

    Returns
    -------
    Crop
        After ten rectangles that do not fit: the largest central one within ``ratio``, as torchvision does.

    Examples
    --------
    >>> crop_from(np.full(DRAWS, 0.999), (10, 10), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    Crop(left=0, top=0, width=10, height=10, flip=False)
    """
    width, height = size
    mirrored = bool(draws[-1] < 0.5) and flip
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, slope, x, y in draws[:-1].reshape(ATTEMPTS, 4):
        area = width * height * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(low + slope * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(x * (width - w + 1)), int(y * (height - h + 1)), w, h, mirrored)
    return _central(width, height, ratio, mirrored)


def _central(width: int, height: int, ratio: tuple[float, float], flip: bool) -> Crop:
    """Return the largest central crop whose aspect ratio lies in the range."""
    w, h = width, height
    if width / height < ratio[0]:
        h = min(max(round(width / ratio[0]), 1), height)
    elif width / height > ratio[1]:
        w = min(max(round(height * ratio[1]), 1), width)
    return Crop((width - w) // 2, (height - h) // 2, w, h, flip)


def cut(pixels: NDArray[np.uint8], crop: Crop, size: int, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Cut a crop out of (h, w, 3) and resize it with Pillow to (size, size, 3), to torchvision's very bytes.

    The crop comes first: a resize that is given a box lets pixels outside of it in at its edges.
    """
    inside = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(inside)).resize((size, size), resample))
    return resized[:, ::-1] if crop.flip else resized
