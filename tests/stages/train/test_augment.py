"""Crops of training and evaluation: inside the image, torchvision's in distribution and to the byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import hflip, resized_crop

from stages.errors import InputError
from stages.records import Preprocessing
from stages.train.augment import DRAWS, Crop, crop_from, cut
from stages.train.evaluate import evaluation_view
from stages.vision.transforms import RESAMPLING


@settings(max_examples=200)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.08, 1.0), (0.5, 0.5), (1.0, 1.0)]),
    st.sampled_from([(0.75, 4 / 3), (1.0, 1.0), (3.0, 3.0)]),
)
def test_crops_lie_inside_the_image(
    width: int, height: int, seed: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    crop = crop_from(np.random.default_rng(seed).random(DRAWS), (width, height), scale, ratio)
    assert 0 <= crop.left <= crop.left + crop.width <= width
    assert 0 <= crop.top <= crop.top + crop.height <= height
    assert crop.width > 0
    assert crop.height > 0


def test_crops_are_distributed_as_torchvisions() -> None:
    """Share of the area, aspect ratio and position: two-sample comparison of 3,000 draws each."""
    from scipy.stats import ks_2samp

    size, n = (200, 150), 3000
    ours = [crop_from(draws, size) for draws in np.random.default_rng(0).random((n, DRAWS))]
    torch.manual_seed(0)
    image = Image.new("RGB", size)
    theirs = [
        Crop(left, top, w, h)
        for top, left, h, w in (
            RandomResizedCrop.get_params(image, [0.08, 1.0], [0.75, 4 / 3]) for _ in range(n)
        )
    ]

    def facts(crops: list[Crop]) -> np.ndarray:
        return np.array([(c.width * c.height, c.width / c.height, c.left, c.top) for c in crops]).T

    for a, b in zip(facts(ours), facts(theirs), strict=True):
        assert ks_2samp(a, b).pvalue > 0.001
    assert abs(np.mean([c.flip for c in ours]) - 0.5) < 0.04
    assert not any(crop_from(d, size, flip=False).flip for d in np.random.default_rng(0).random((50, DRAWS)))


@pytest.mark.parametrize("size", [(100, 10), (10, 100), (100, 7), (7, 100), (1, 50)])
def test_where_nothing_fits_the_central_crop_is_torchvisions(size: tuple[int, int]) -> None:
    scale, ratio = (1.0, 1.0), (0.75, 4 / 3)
    got = crop_from(np.random.default_rng(0).random(DRAWS), size, scale, ratio)
    top, left, height, width = RandomResizedCrop.get_params(Image.new("RGB", size), list(scale), list(ratio))
    assert (got.width, got.height) == (max(width, 1), max(height, 1))
    assert (got.left, got.top) == (left, top)


def test_a_cut_is_the_crop_resized_and_mirrored() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    whole = cut(pixels, Crop(5, 6, 16, 16), 16, Image.Resampling.BICUBIC)
    assert np.array_equal(whole, pixels[6:22, 5:21])
    mirrored = cut(pixels, Crop(5, 6, 16, 16, flip=True), 16, Image.Resampling.BICUBIC)
    assert np.array_equal(mirrored, pixels[6:22, 5:21][:, ::-1])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["bilinear", "bicubic"]))
@settings(max_examples=30, deadline=None)
def test_a_cut_has_torchvisions_very_bytes(seed: int, name: str) -> None:
    dice = np.random.default_rng(seed)
    height, width = (int(v) for v in dice.integers(20, 120, 2))
    pixels = dice.integers(0, 255, (height, width, 3), np.uint8)
    crop = crop_from(dice.random(DRAWS), (width, height))
    theirs = resized_crop(
        Image.fromarray(pixels),
        crop.top, crop.left, crop.height, crop.width, [32, 32], InterpolationMode(name),
    )  # fmt: skip
    theirs = hflip(theirs) if crop.flip else theirs
    assert np.array_equal(cut(pixels, crop, 32, RESAMPLING[name]), np.asarray(theirs))


def test_evaluation_crops() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 160, 3), np.uint8))
    facts = Preprocessing(56, "bicubic", "center", 0.9, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    resample = Image.Resampling.BICUBIC
    whole = np.asarray(image.resize((56, 56), resample))
    central = np.asarray(image.crop((10, 5, 150, 75)).resize((56, 56), resample))
    simclr = np.asarray(image.resize((128, 64), resample).crop((36, 4, 92, 60)))
    assert np.array_equal(evaluation_view(image, facts, "whole"), whole)
    # Resizing with a box reads the pixels just outside it as well; away from the border the two agree.
    assert (
        np.abs(
            evaluation_view(image, facts, "central_87.5")[3:-3, 3:-3].astype(int) - central[3:-3, 3:-3]
        ).max()
        <= 1
    )
    assert np.array_equal(evaluation_view(image, facts, "simclr"), simclr)
    with pytest.raises(InputError, match=r"whole, central_87\.5 or simclr"):
        evaluation_view(image, facts, "none")
