"""Images that stand somewhere twice, byte for byte: told on loading, left out where the study says so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from stages.errors import DatasetError
from stages.records import Dataset, Split, SplitName

if TYPE_CHECKING:
    from pipeline.resolve import Images


def twin_notes(name: str, images: Images) -> Iterator[str]:
    """Say which images stand in two splits, so that a score partly measures memory, and which bear two labels.

    Parameters
    ----------
    name : str
        Of the data set.
    images : Images
        With the hashes of its files.
    """
    splits = images.dataset.splits
    for one, other in itertools.combinations(splits, 2):
        first = dict(zip(images.image_sha256[one], splits[one].ids, strict=True))
        pairs = zip(images.image_sha256[other], splits[other].ids, strict=True)
        twins = [(first[digest], id_) for digest, id_ in pairs if digest in first]
        if twins:
            example = f"{twins[0][0]!r} and {twins[0][1]!r}"
            same = "is byte-identical to an image" if len(twins) == 1 else "are byte-identical to images"
            yield f"{name}: {_images(len(twins))} of {other} {same} of {one}, such as {example}"
    contrary = _contrary(images)
    if contrary:
        yield (
            f"{name}: {len(contrary)} images are byte-identical to one with another label, such as "
            f"{contrary[0]!r} and {contrary[1]!r}; no network can be right about both"
        )


def _images(count: int) -> str:
    """Count images in words."""
    return "1 image" if count == 1 else f"{count} images"


def _contrary(images: Images) -> list[str]:
    """Return the ids of images that stand under several labels, those of the same bytes side by side."""
    known: dict[str, dict[bytes, list[str]]] = {}
    for name, split in images.dataset.splits.items():
        for digest, id_, label in zip(images.image_sha256[name], split.ids, split.labels, strict=True):
            known.setdefault(digest, {}).setdefault(label.tobytes(), []).append(id_)
    several = [list(labels.values()) for labels in known.values() if len(labels) > 1]
    return [ids[0] for labels in several for ids in labels] + [
        id_ for labels in several for ids in labels for id_ in ids[1:]
    ]


def without_images_of_test(images: Images) -> Images:
    """Leave out of train and validation what also stands in test; test stays as it is.

    Parameters
    ----------
    images : Images
        A data set with the hashes of its files.

    Returns
    -------
    Images
        With a note of how many were left out, and an example; the same where there was nothing to leave out.

    Raises
    ------
    DatasetError
        A class would lose its last training image.
    """
    dataset, hashes = images.dataset, dict(images.image_sha256)
    test = dict(zip(hashes["test"], dataset.splits["test"].ids, strict=True))
    splits, notes = dict(dataset.splits), []
    for name in cast("tuple[SplitName, ...]", ("train", "validation")):
        if name not in splits:
            continue
        rows = splits[name]
        twins = [i for i, digest in enumerate(hashes[name]) if digest in test]
        if not twins:
            continue
        kept = np.setdiff1d(np.arange(len(rows), dtype=np.intp), twins)
        example = f"{rows.ids[twins[0]]!r} is {test[hashes[name][twins[0]]]!r} of test"
        left_out = f"{_images(len(twins))} of {name} left out"
        notes.append(f"{left_out}, byte-identical to images of test: {example}")
        splits[name], hashes[name] = rows.take(kept), tuple(hashes[name][i] for i in kept)
    if not notes:
        return images
    _check_classes(dataset, splits["train"])
    return replace(images, dataset=dataset.with_splits(splits, *notes), image_sha256=hashes)


def _check_classes(dataset: Dataset, train: Split) -> None:
    """Refuse a training split that has lost a class."""
    lost = [
        dataset.class_names[k]
        for k, (before, after) in enumerate(
            zip(class_counts(dataset.splits["train"], dataset), class_counts(train, dataset), strict=True)
        )
        if before and not after
    ]
    if lost:
        raise DatasetError(
            f"{dataset.name}: exclude_duplicates would leave class {lost[0]!r} without a training image: all of "
            "them stand in test; mend the splits"
        )


def class_counts(split: Split, dataset: Dataset) -> NDArray[np.int64]:
    """Return the images of each class of a split, shape (K,); multi-label: those that bear the label."""
    if dataset.multi_label:
        return np.asarray((split.labels == 1).sum(axis=0), dtype=np.int64)
    return np.bincount(split.labels, minlength=len(dataset.class_names)).astype(np.int64)
