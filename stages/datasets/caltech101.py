"""Caltech-101: a folder a class, 30 random images of each for training, the rest for testing."""

from __future__ import annotations

import re

from stages.datasets.drawn import drawn
from stages.datasets.official import Release
from stages.datasets.rows import Row, some
from stages.errors import DatasetError

PER_CLASS = 30
IMAGE = re.compile(r"image_\d{4}\.jpg")


def caltech101(release: Release) -> list[Row]:
    """``101_ObjectCategories/CLASS/image_0001.jpg``; BACKGROUND_Google is a class like the others.

    The archive holds a few files that are no images of the set; they are left out and told.
    """
    home, rows, others = release.folder("101_ObjectCategories"), [], []
    classes = sorted(path.name for path in home.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DatasetError(f"{home}: holds no class folders; {release.again}")
    for label in classes:
        names = sorted(path.name for path in (home / label).iterdir() if not path.name.startswith("."))
        images = [f"{label}/{name}" for name in names if IMAGE.fullmatch(name)]
        others += [f"{label}/{name}" for name in names if not IMAGE.fullmatch(name)]
        if not images:
            raise DatasetError(
                f"{home / label}: no image_0001.jpg, image_0002.jpg, ... in it; {release.again}"
            )
        train = set(drawn(images, release.seed)[:PER_CLASS])
        rows += [
            release.row(home, entry, label, "train" if entry in train else "test", str(home))
            for entry in images
        ]
    if others:
        release.notes.append(f"{len(others)} files are not part of the set: {some(others)}")
    release.notes.append(
        f"{PER_CLASS} random images a class for training, seed {release.seed}, the rest for testing"
    )
    return rows
