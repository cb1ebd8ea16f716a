"""Score a trained network on a split: one forward pass, probabilities, the data set's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from stages.errors import InputError
from stages.records import Preprocessing, TrainRecipe
from stages.train.model import probabilities
from stages.train.pixels import ImageStore
from stages.vision.devices import numeric_precision
from stages.vision.transforms import RESAMPLING, fit, normalise, stack

_CENTRAL = 0.875
_BATCH = 64


def evaluation_view(image: Image.Image, preprocessing: Preprocessing, crop: str) -> NDArray[np.uint8]:
    """Return what the network sees of a test image, (size, size, 3).

    ``whole``: the uncropped image, resized. ``central_87.5``: the central 87.5 % of both sides, resized
    (the paper chose between these two, grade L). ``simclr``: short side to size * 256/224, centre crop (H).

    Raises
    ------
    InputError
        Another word.
    """
    if crop == "whole":
        return fit(image, replace(preprocessing, crop="whole"))
    if crop == "simclr":
        return fit(image, replace(preprocessing, crop="center", crop_fraction=_CENTRAL))
    if crop != "central_87.5":
        raise InputError(f"unknown evaluation_crop {crop!r}: choose whole, central_87.5 or simclr")
    width, height = image.size
    margin = (1 - _CENTRAL) / 2
    box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
    size = preprocessing.size
    return np.asarray(image.resize((size, size), RESAMPLING[preprocessing.interpolation], box=box))


def read_views(
    paths: Sequence[Path], preprocessing: Preprocessing, recipe: TrainRecipe
) -> list[NDArray[np.uint8]]:
    """Decode the images to be scored, once, at the size they are scored at."""
    store = ImageStore(paths, budget=0, workers=recipe.num_workers or None)
    try:
        crop = recipe.evaluation_crop
        return store.map(lambda row: evaluation_view(store[row], preprocessing, crop), range(len(store)))
    finally:
        store.close()


def score(
    network: nn.Module,
    views: Sequence[NDArray[np.uint8]],
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str,
    multi_label: bool,
) -> NDArray[np.float32]:
    """Return probabilities (n, K) of images read by :func:`read_views`; the network's mode is restored."""
    training = network.training
    network.eval()
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode(), numeric_precision(precision, device):
        for first in range(0, len(views), _BATCH):
            images = stack(views[first : first + _BATCH]).to(device, non_blocking=True)
            logits = network(normalise(images, preprocessing))
            parts.append(probabilities(logits, multi_label).cpu().numpy())
    network.train(training)
    return np.concatenate(parts)
