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
    resized = short_side(image, math.floor(size / preprocessing.crop_fraction), resample)
    return np.asarray(center_crop(resized, size))


def short_side(image: Image.Image, target: int, resample: Image.Resampling) -> Image.Image:
    """Resize the short side to ``target``; the long side is rounded down, as torchvision does."""
    width, height = image.size
    if width <= height:
        return _resized(image, (target, int(target * height / width)), resample)
    return _resized(image, (int(target * width / height), target), resample)


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
