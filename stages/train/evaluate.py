"""Score a trained network on a split: one forward pass, probabilities, the data set's metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


class Views:
    """The images to be scored, at the size they are scored at; kept after the first look where they fit.

    Parameters
    ----------
    paths : sequence of Path
        n files.
    preprocessing : Preprocessing
        Its size is the size scored at.
    recipe : TrainRecipe
        Its ``evaluation_crop``, ``num_workers`` and ``image_memory``.
    sha256 : mapping of Path to str, optional
        As `ImageStore` has it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        recipe: TrainRecipe,
        sha256: Mapping[Path, str] | None = None,
    ) -> None:
        self._store = ImageStore([paths], budget=0, workers=recipe.num_workers or None, sha256=sha256)
        self._preprocessing = preprocessing
        self._crop = recipe.evaluation_crop
        self._fits = len(paths) * 3 * preprocessing.size**2 <= recipe.image_memory
        self._kept: list[NDArray[np.uint8]] = []

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield uint8 batches (b, 3, s, s)."""
        for first in range(0, len(self._store), _BATCH):
            views = self._kept[first : first + _BATCH]
            if not views:
                rows = range(first, min(first + _BATCH, len(self._store)))
                views = self._store.map(self._view, rows)
                self._kept += views if self._fits else []
            yield stack(views)

    def close(self) -> None:
        """End the threads and let the images go."""
        self._store.close()
        self._kept.clear()

    def _view(self, row: int) -> NDArray[np.uint8]:
        """Decode one image."""
        return evaluation_view(Image.fromarray(self._store[row]), self._preprocessing, self._crop)


def score(
    network: nn.Module,
    views: Views,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str,
    multi_label: bool,
) -> NDArray[np.float32]:
    """Return probabilities (n, K) of images; the network's mode is restored."""
    training = network.training
    network.eval()
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode(), numeric_precision(precision, device):
        for images in views:
            logits = network(normalise(images.to(device, non_blocking=True), preprocessing))
            parts.append(probabilities(logits, multi_label).cpu().numpy())
    network.train(training)
    return np.concatenate(parts)
