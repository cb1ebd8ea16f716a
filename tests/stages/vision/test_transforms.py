"""Geometry and normalisation against torchvision's own transforms."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as reference
from torchvision.transforms import InterpolationMode

from stages.records import Interpolation, Preprocessing
from stages.vision.transforms import RESAMPLING, _centre_of, fit, normalise, short_side, stack

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def make(
    crop: str, size: int, interpolation: Interpolation = "bicubic", fraction: float = 0.875
) -> Preprocessing:
    return Preprocessing(size, interpolation, crop, fraction, MEAN, STD)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.integers(1, 50),
    fraction=st.sampled_from([0.5, 0.875, 0.9, 0.95, 1.0]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "nearest", "lanczos"]),
)
def test_the_centre_crop_is_torchvisions(
    width: int, height: int, size: int, fraction: float, interpolation: Interpolation
) -> None:
    image, mode = picture(width, height), InterpolationMode(interpolation)
    expected = reference.CenterCrop(size)(reference.Resize(int(size / fraction), mode)(image))
    assert np.array_equal(fit(image, make("center", size, interpolation, fraction)), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize(("width", "height"), [(300, 3), (2, 301), (90, 70)])
@pytest.mark.parametrize("fraction", [0.5, 0.875, 1.25])
def test_the_centre_alone_is_that_of_the_whole(
    width: int, height: int, fraction: float, interpolation: Interpolation
) -> None:
    """What long thin images get, on images that can be resized whole; their contrast overshoots nothing."""
    image, resample = picture(width, height).point(lambda value: 100 + value // 8), RESAMPLING[interpolation]
    whole = short_side(image.size, int(20 / fraction))
    got = np.asarray(_centre_of(image, whole, 20, resample)).astype(int)
    assert np.abs(got - fit(image, make("center", 20, interpolation, fraction))).max() <= 2


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_line_of_pixels_costs_no_more_than_its_centre(size: tuple[int, int]) -> None:
    began = time.process_time()
    fitted = fit(picture(*size), make("center", 224))
    assert fitted.shape == (224, 224, 3)
    assert fitted.std() > 10
    assert time.process_time() - began < 2


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"])
def test_the_whole_image_is_resized(interpolation: Interpolation) -> None:
    image = picture(70, 40)
    expected = reference.Resize((24, 24), InterpolationMode(interpolation))(image)
    assert np.array_equal(fit(image, make("whole", 24, interpolation)), np.asarray(expected))


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = picture(24, 24)
    assert np.array_equal(fit(image, make("whole", 24)), np.asarray(image))


def test_normalised_batches_are_what_totensor_and_normalize_give() -> None:
    images = [picture(8, 8), picture(8, 8).rotate(90)]
    usual = reference.Compose([reference.ToTensor(), reference.Normalize(MEAN, STD)])
    batch = stack([np.asarray(i) for i in images])
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)
    got = normalise(batch, make("whole", 8))
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, torch.stack([usual(i) for i in images]), rtol=0, atol=1e-6)
