"""Random resized crop and horizontal flip, the protocol's only augmentation (grade M).

What is drawn is a pure function of (seed, step): a resumed job draws what the uninterrupted one drew,
however many threads cut the crops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ATTEMPTS = 10


@dataclass(frozen=True)
class Crop:
    """A rectangle of an image, in pixels, perhaps mirrored."""

    left: int
    top: int
    width: int
    height: int
    flip: bool = False


def draw_crop(
    rng: np.random.Generator,
    size: tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (0.75, 4 / 3),
    flip: bool = True,
) -> Crop:
    """Draw a crop: its share of the area uniform, the logarithm of its aspect ratio uniform.

    Parameters
    ----------
    rng : numpy.random.Generator
        Advanced by a fixed number of draws, whatever the image.
    size : (int, int)
        Width and height of the image, pixels.
    scale, ratio : (float, float)
        Ranges of the share of the area and of width / height.
    flip : bool
        Whether to mirror with probability 1/2.

    Returns
    -------
    Crop
        After ten draws that do not fit: the largest central crop within ``ratio``, as torchvision does.
    """
    width, height = size
    draws = rng.random((_ATTEMPTS, 4))
    mirrored = bool(rng.random() < 0.5) and flip
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, slope, x, y in draws:
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
        h = max(round(width / ratio[0]), 1)
    elif width / height > ratio[1]:
        w = max(round(height * ratio[1]), 1)
    return Crop((width - w) // 2, (height - h) // 2, w, h, flip)


def cut(image: Image.Image, crop: Crop, size: int, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Cut a crop and resize it with Pillow to (size, size, 3) uint8."""
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    pixels = np.asarray(image.resize((size, size), resample, box=box))
    return pixels[:, ::-1] if crop.flip else pixels
