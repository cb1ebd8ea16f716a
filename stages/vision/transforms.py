"""Images to network inputs: resize with Pillow, normalise with torch.

Pillow resizes because only Pillow reproduces Pillow. Geometry follows torchvision's, so that features equal
timm's own pipeline.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stages.records import Preprocessing

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

_LARGEST = 1 << 25
"""Pixels of an image that is resized as a whole to have its centre cut out: of no photograph are they more."""


def fit(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Bring an image to the network's input size.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode "RGB".
    preprocessing : Preprocessing
        Its ``crop`` decides: ``whole`` resizes both sides to ``size`` (the paper's linear probe);
        ``center`` resizes the short side to floor(size / crop_fraction) and takes the centre (SimCLR's).

    Returns
    -------
    ndarray of uint8, (size, size, 3)
    """
    size, resample = preprocessing.size, RESAMPLING[preprocessing.interpolation]
    if preprocessing.crop == "whole":
        return np.asarray(_resized(image, (size, size), resample))
    whole = short_side(image.size, math.floor(size / preprocessing.crop_fraction))
    if whole[0] * whole[1] > _LARGEST:
        return np.asarray(_centre_of(image, whole, size, resample))
    return np.asarray(center_crop(_resized(image, whole, resample), size))


def short_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """Return width and height with the short side ``target``; the long one is rounded down, as torchvision does."""
    width, height = size
    if width <= height:
        return target, int(target * height / width)
    return int(target * width / height), target


def _centre_of(
    image: Image.Image, whole: tuple[int, int], size: int, resample: Image.Resampling
) -> Image.Image:
    """Return the centre of an image resized to ``whole``, of which no more is ever made than the centre.

    Pillow rounds the box to float32 and may resize rows and columns in another order, so that values differ a
    little from those of the whole image resized: only images too long and thin for that come here.
    """
    starts = [round((side - size) / 2) for side in whole]
    spans = [(max(start, 0), min(start + size, side)) for start, side in zip(starts, whole, strict=True)]
    (left, right), (top, bottom) = (
        (low * there / side, high * there / side)
        for (low, high), there, side in zip(spans, image.size, whole, strict=True)
    )
    part = image.resize(
        (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]), resample, box=(left, top, right, bottom)
    )
    x, y = (min(start, 0) for start in starts)
    return part.crop((x, y, x + size, y + size))


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Take the central square; where the image is smaller it is padded with black, as torchvision does."""
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resize unless the image has that size already."""
    return image if image.size == size else image.resize(size, resample)


def stack(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Stack fitted images into one uint8 batch (n, 3, size, size) that lies channels-last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def normalise(batch: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn a uint8 RGB batch (n, 3, s, s) into float32, (x / 255 - mean) / std, on its own device."""
    count, _, height, width = batch.shape
    rows = batch.permute(0, 2, 3, 1)
    if not rows.is_contiguous():
        mean, std = (_constants(values, 1, batch.device).view(3, 1, 1) for values in _moments(preprocessing))
        return batch.float().div_(255).sub_(mean).div_(std)
    # A row of pixels at a time: over the three colours alone no CPU computes fast.
    mean, std = (_constants(values, width, batch.device) for values in _moments(preprocessing))
    flat = rows.reshape(count * height, width * 3).float().div_(255).sub_(mean).div_(std)
    return flat.view(count, height, width, 3).permute(0, 3, 1, 2)


def _moments(preprocessing: Preprocessing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation."""
    return preprocessing.mean, preprocessing.std


@functools.lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], times: int, device: torch.device) -> torch.Tensor:
    """Return some constants on a device, several times one after the other; made once."""
    with torch.inference_mode(False):  # a training may use them too
        return torch.tensor(values, device=device).repeat(times)
