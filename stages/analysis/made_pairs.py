"""Copies made on purpose: what a search for near-duplicates finds of them says how far it can be trusted.

Pillow is loaded when the first copy is made.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.analysis.duplicates import Pairs
from stages.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

Change = Literal["crop", "rescale", "jpeg", "flip"]

CHANGES: tuple[Change, ...] = ("crop", "rescale", "jpeg", "flip")
CROP_AREA = (0.6, 0.95)
RESCALE = (0.3, 2.0)
JPEG_QUALITY = (10, 70)


@dataclass(frozen=True)
class MadeCopy:
    """What was done to which picture."""

    row: int
    """Of the original in its table."""
    change: Change
    amount: float
    """Share of the area kept, factor on both sides, quality; 1 for a mirrored copy."""


@dataclass(frozen=True)
class Detection:
    """How a search did on made copies."""

    made: int
    found: int
    recall: float
    """found / made."""
    recall_by_change: Mapping[str, float]
    others: int
    """Pairs found that are not made ones: real duplicates of the set, or errors; only a look tells."""
    precision: float
    """found / all pairs found: a lower bound, for every real duplicate counts against it. NaN without pairs."""


def made_copies(paths: Sequence[Path], count: int, seed: int) -> Iterator[tuple[MadeCopy, Image.Image]]:
    """Yield changed copies of pictures, each original once, the four changes in turn.

    Parameters
    ----------
    paths : sequence of Path
        Image of each row.
    count : int
        Copies, at most as many as there are pictures.
    seed : int
        Of the rows and of the amounts: area of a crop and JPEG quality uniform in 60-95 % and 10-70, a rescaled
        copy's factor log-uniform in 0.3-2.

    Yields
    ------
    MadeCopy, PIL.Image.Image
        Save it without loss (PNG), or the file adds a change of its own.

    Raises
    ------
    InputError
        More copies than pictures.
    BadImageError
        A picture cannot be decoded.
    """
    if not 1 <= count <= len(paths):
        raise InputError(f"{count} copies of {len(paths)} pictures: give 1 to that many")
    try:
        from stages.vision.images import read_image
    except ModuleNotFoundError as problem:
        raise MissingExtraError("Pillow", "vision") from problem
    rng = np.random.Generator(np.random.PCG64(seed))
    for i, row in enumerate(rng.permutation(len(paths))[:count]):
        change = CHANGES[i % len(CHANGES)]
        image, amount = changed(read_image(paths[row]), change, rng)
        yield MadeCopy(int(row), change, amount), image


def changed(image: Image.Image, change: Change, rng: np.random.Generator) -> tuple[Image.Image, float]:
    """Return a changed copy of a picture and by how much it was changed."""
    from PIL import Image

    width, height = image.size
    if change == "crop":
        area = float(rng.uniform(*CROP_AREA))
        w, h = max(1, round(width * area**0.5)), max(1, round(height * area**0.5))
        left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        return image.crop((left, top, left + w, top + h)), area
    if change == "rescale":
        factor = float(np.exp(rng.uniform(*np.log(RESCALE))))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        return image.resize(size, Image.Resampling.BICUBIC), factor
    if change == "jpeg":
        quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
        file = io.BytesIO()
        image.save(file, "jpeg", quality=quality)
        with Image.open(io.BytesIO(file.getvalue())) as again:
            return again.convert("RGB"), float(quality)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 1.0


def detection(pairs: Pairs, copies: Sequence[MadeCopy], first_copy: int) -> Detection:
    """Compare what was found with what was made.

    Parameters
    ----------
    pairs : Pairs
        Found inside one table: the originals' rows, then one row for each copy.
    copies : sequence of MadeCopy
        In the order of their rows.
    first_copy : int
        Row of the first one.
    """
    wanted = {(copy.row, first_copy + i): copy.change for i, copy in enumerate(copies)}
    hits = [wanted[p] for p in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True) if p in wanted]
    made = [copy.change for copy in copies]
    return Detection(
        made=len(copies),
        found=len(hits),
        recall=len(hits) / len(copies),
        recall_by_change={c: hits.count(c) / made.count(c) for c in CHANGES if c in made},
        others=len(pairs) - len(hits),
        precision=len(hits) / len(pairs) if len(pairs) else float("nan"),
    )
