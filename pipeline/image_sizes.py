"""How large the images of a split are, from a few of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.records import Split

SAMPLE = 24
"""Files that are looked at, evenly over the split."""
BYTES_A_PIXEL = 0.25
"""Of a JPEG photograph: for a machine that has no Pillow to read sizes with, and files it cannot read."""


class ImageSizes:
    """Mean sizes by split; every split is looked at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], float] = {}

    def megapixels(self, dataset: str, split: Split) -> float:
        """Return the mean pixels of an image of a split, in 1e6."""
        place = dataset, split.name, len(split)
        if place not in self._known:
            self._known[place] = mean_megapixels(split.paths)
        return self._known[place]


def mean_megapixels(paths: Sequence[Path]) -> float:
    """Return the mean pixels of some image files, in 1e6; only the heads of a few files are read.

    A file whose size cannot be read counts by its bytes; one that is not there is left out.
    """
    chosen = [paths[i * len(paths) // SAMPLE] for i in range(SAMPLE)] if len(paths) > SAMPLE else paths
    found = [size for path in chosen if (size := _pixels(path)) is not None]
    return sum(found) / len(found) / 1e6 if found else 0.0


def _pixels(path: Path) -> float | None:
    """Return the pixels of one file; None where there is no file."""
    try:
        return _from_head(path)
    except (ImportError, OSError, SyntaxError, ValueError, Warning):
        try:
            return path.stat().st_size / BYTES_A_PIXEL
        except OSError:
            return None


def _from_head(path: Path) -> float:
    """Read the size that the head of a file states."""
    from PIL import Image

    with Image.open(path) as image:
        return float(image.width * image.height)
