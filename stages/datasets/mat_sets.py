"""Official releases whose labels lie in MATLAB files: Stanford Cars and Oxford Flowers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stages.datasets.official import Release, mat_of
from stages.datasets.rows import Row, some
from stages.errors import DatasetError
from stages.records import SplitName

LABELLED_TEST = "cars_test_annos_withlabels.mat"
FLOWERS: tuple[tuple[str, SplitName], ...] = (("trnid", "train"), ("valid", "validation"), ("tstid", "test"))
"""What ``setid.mat`` calls the splits."""


def stanford_cars(release: Release) -> list[Row]:
    """``devkit/*.mat`` with class numbers from 1; images in ``cars_train`` and ``cars_test``.

    The devkit's own annotations of the test images carry no classes; a file of its own does.
    """
    meta = release.file("devkit/cars_meta.mat")
    names = mat_of(meta, "class_names")["class_names"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise DatasetError(f"{meta}: 'class_names' is no list of names; fetch the devkit again")
    places = (LABELLED_TEST, f"devkit/{LABELLED_TEST}")
    if not any((release.home / place).is_file() for place in places):
        raise DatasetError(
            f"{release.home / LABELLED_TEST}: no such file; cars_test_annos.mat of the devkit has no classes, "
            "fetch the annotations with labels beside it"
        )
    train, test = release.file("devkit/cars_train_annos.mat"), release.file(*places)
    return _cars(release, train, "train", names) + _cars(release, test, "test", names)


def _cars(release: Release, path: Path, split: SplitName, names: list[str]) -> list[Row]:
    """Read one file of annotations."""
    table = mat_of(path, "annotations")["annotations"]
    fields = list(table[0]) if isinstance(table, list) and table and isinstance(table[0], dict) else []
    for wanted in ("class", "fname"):
        if wanted not in fields:
            raise DatasetError(
                f"{path}: the annotations have no field {wanted!r} (found: {some(fields) or 'none'}); "
                f"fetch {LABELLED_TEST if split == 'test' else 'the devkit'} again"
            )
    images, rows = release.folder(f"cars_{split}"), []
    for number, annotation in enumerate(table, start=1):
        where, name = f"{path}, annotation {number}", str(annotation["fname"])
        label = names[_number(annotation["class"], len(names), where) - 1].strip()
        path_of = release.row(images, name, label, split, where).path
        rows.append(Row(f"cars_{split}/{name}", path_of, label, split))
    return rows


def flowers102(release: Release) -> list[Row]:
    """``imagelabels.mat`` and ``setid.mat``; images are ``jpg/image_00001.jpg``; classes have numbers only."""
    labels_file, sets_file = release.file("imagelabels.mat"), release.file("setid.mat")
    labels = np.atleast_1d(mat_of(labels_file, "labels")["labels"])
    sets = mat_of(sets_file, *(key for key, _ in FLOWERS))
    images, rows = release.folder("jpg"), []
    for key, split in FLOWERS:
        for entry in np.atleast_1d(sets[key]).ravel():
            i = _number(entry, len(labels), f"{sets_file}, {key}")
            label = f"{_number(labels[i - 1], 999, f'{labels_file}, image {i}'):03d}"
            rows.append(release.row(images, f"image_{i:05d}.jpg", label, split, str(sets_file)))
    return rows


def _number(value: Any, most: int, where: str) -> int:
    """Return an integer from 1 to ``most``, or say what stands there instead."""
    number = value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else None
    if not isinstance(number, int | float) or number not in range(1, most + 1):
        raise DatasetError(
            f"{where}: {str(value)[:40]!r} is no number from 1 to {most}; fetch the file again"
        )
    return int(number)
