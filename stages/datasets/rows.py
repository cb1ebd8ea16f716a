"""From raw rows (id, file, label text, split, group) to a checked `Dataset`.

Every source ends here, so that every data set is checked by the same rules and reports all its mistakes
at once.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from stages.errors import DatasetAbsentError, DatasetError
from stages.names import nearest
from stages.records import SPLITS, Dataset, Metric, Split, SplitName

SHOWN = 3
"""Examples that a message names before it counts the rest."""
POINTER, POINTER_SIZE = b"version https://git-lfs", 1024
"""How a Git LFS pointer begins, and what it is always smaller than."""


@dataclass(frozen=True)
class Row:
    """One image as its source describes it."""

    id: str
    path: Path
    label: str
    """As written: "rose", or "desert|sea|?trees" where multi-label."""
    split: SplitName
    group: str = ""


def some(items: Sequence[str]) -> str:
    """Name the first few of many."""
    head = ", ".join(repr(item) for item in items[:SHOWN])
    return head if len(items) <= SHOWN else f"{head} and {len(items) - SHOWN} more"


def build_dataset(
    name: str,
    rows: Sequence[Row],
    *,
    where: str,
    metric: Metric | None = None,
    multi_label: bool | None = None,
    notes: Iterable[str] = (),
    if_missing: str = "paths are relative to the csv's folder",
) -> Dataset:
    """Check the rows and return them as a data set.

    Parameters
    ----------
    name : str
        The data set's name in the study.
    rows : sequence of Row
        In the order that the features shall have.
    where : str
        The source, for messages.
    metric : Metric, optional
        Default: top_1, or map_11_point where images may bear several labels.
    multi_label : bool, optional
        Default: whether any label holds a ``|`` or begins with ``?``.
    notes : iterable of str
        What the source did that a reader must know.
    if_missing : str
        What to do where some images are not there.

    Raises
    ------
    DatasetError
        With one line per mistake: no rows, duplicate ids, missing files, Git LFS pointers in place of
        images, a split without rows, one class,
        a class in validation or test that train lacks, a metric that does not fit the labels.
    """
    if not rows:
        raise DatasetError(f"{where}: no images listed; expected at least one row per class and split")
    if multi_label is None:
        multi_label = metric == "map_11_point" or any("|" in r.label or r.label.startswith("?") for r in rows)
    chosen: Metric = metric or ("map_11_point" if multi_label else "top_1")
    missing, pointers = _look_at_files(rows)
    if len(missing) == len(rows):
        raise DatasetAbsentError(f"{where}: none of the {len(rows)} images is there: {some(missing)}")
    mistakes = [
        *_duplicate_ids(rows),
        *_missing_files(missing, len(rows), if_missing),
        *_pointers(pointers, len(rows)),
        *_empty_splits(rows),
        *_label_mistakes(rows, multi_label),
        *_metric_mistakes(chosen, multi_label),
    ]
    if mistakes:
        raise DatasetError("\n".join(f"{where}: {mistake}" for mistake in mistakes))
    class_names = tuple(sorted({label for row in rows for label in _named(row.label, multi_label)}))
    return Dataset(
        name=name,
        class_names=class_names,
        multi_label=multi_label,
        metric=chosen,
        splits={
            split: _split(split, [r for r in rows if r.split == split], class_names, multi_label)
            for split in SPLITS
            if any(r.split == split for r in rows)
        },
        notes=(*notes, *_torn_groups(rows)),
    )


def _torn_groups(rows: Sequence[Row]) -> list[str]:
    """Say which groups the data set's own splits tear: its splits stay as they are."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.group:
            splits.setdefault(row.group, set()).add(row.split)
    torn = sorted(group for group, found in splits.items() if len(found) > 1)
    if not torn:
        return []
    return [f"{len(torn)} groups have rows in several of the data set's own splits: {some(torn)}"]


def _named(label: str, multi_label: bool) -> list[str]:
    """Split the label text into class names, without the mark of ignored ones."""
    return [part.removeprefix("?") for part in label.split("|") if part] if multi_label else [label]


def _present(label: str, multi_label: bool) -> list[str]:
    """Class names that count as positive examples."""
    return [p for p in label.split("|") if p and not p.startswith("?")] if multi_label else [label]


def _split(name: SplitName, rows: list[Row], class_names: tuple[str, ...], multi_label: bool) -> Split:
    """Number the labels and line the columns up."""
    index = {label: k for k, label in enumerate(class_names)}
    if multi_label:
        labels = np.zeros((len(rows), len(class_names)), dtype=np.int8)
        for i, row in enumerate(rows):
            for part in filter(None, row.label.split("|")):
                labels[i, index[part.removeprefix("?")]] = -1 if part.startswith("?") else 1
    else:
        labels = np.array([index[row.label] for row in rows], dtype=np.int64)
    groups = tuple(row.group for row in rows)
    return Split(
        name=name,
        ids=tuple(row.id for row in rows),
        paths=tuple(row.path for row in rows),
        labels=labels,
        groups=groups if any(groups) else None,
    )


def _duplicate_ids(rows: Sequence[Row]) -> list[str]:
    """Ids listed more than once."""
    twice = [id_ for id_, count in Counter(row.id for row in rows).items() if count > 1]
    return [f"{len(twice)} ids are listed more than once: {some(twice)}; keep one row each"] if twice else []


def _look_at_files(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the ids of images that are not there, and of those whose place a Git LFS pointer takes."""
    missing, pointers = [], []
    for row in rows:
        try:
            status = row.path.stat()
        except (OSError, ValueError):  # a name with a null byte in it is nowhere
            missing.append(row.id)
            continue
        if not stat.S_ISREG(status.st_mode):
            missing.append(row.id)
        elif status.st_size < POINTER_SIZE and row.path.read_bytes().startswith(POINTER):
            pointers.append(row.id)
    return missing, pointers


def _pointers(pointers: Sequence[str], total: int) -> list[str]:
    """Images that Git LFS has not fetched yet."""
    if not pointers:
        return []
    return [f"{len(pointers)} of {total} images are Git LFS pointers: {some(pointers)}; run git lfs pull"]


def _missing_files(missing: Sequence[str], total: int, what_now: str) -> list[str]:
    """Files that are listed and not there."""
    if not missing:
        return []
    return [f"{len(missing)} of {total} images are not there: {some(missing)}; {what_now}"]


def pad_numbers(labels: Sequence[str]) -> list[str]:
    """Write class numbers with equally many digits, so that their order as text is that of the numbers.

    Labels that are not all numbers stay as they are.

    Examples
    --------
    >>> pad_numbers(["9", "10|2"]), pad_numbers(["9", "nine"])
    (['09', '10|02'], ['9', 'nine'])
    """
    parts = [label.split("|") for label in labels]
    if not all(part.isdecimal() for row in parts for part in row):
        return list(labels)
    width = max((len(part) for row in parts for part in row), default=0)
    return ["|".join(part.zfill(width) for part in row) for row in parts]


def _empty_splits(rows: Sequence[Row]) -> list[str]:
    """Splits that must have rows and have none."""
    found = {row.split for row in rows}
    return [
        f"split {split!r} has no rows (found: {', '.join(sorted(found))}); add them"
        for split in cast("tuple[SplitName, ...]", ("train", "test"))
        if split not in found
    ]


def _label_mistakes(rows: Sequence[Row], multi_label: bool) -> list[str]:
    """Labels that cannot be learned from train, or cannot be told apart."""
    empty = [row.id for row in rows if not row.label]
    if empty and not multi_label:
        return [f"{len(empty)} images have no label: {some(empty)}; label them or remove the rows"]
    train_rows = [row for row in rows if row.split == "train"]
    in_train = Counter(label for row in train_rows for label in _present(row.label, multi_label))
    mistakes = []
    for split in ("validation", "test"):
        elsewhere = {n for r in rows if r.split == split for n in _present(r.label, multi_label)}
        for label in sorted(elsewhere - set(in_train)) if train_rows else []:
            close = nearest(label, in_train, count=1)
            hint = f"; a typo of {close[0]!r}?" if close else "; add training images or remove its rows"
            mistakes.append(f"class {label!r} is in {split} and has no image in train{hint}")
    if train_rows and len(in_train) < 2 and not multi_label:
        mistakes.append(f"one class only ({some(list(in_train))}); a probe needs at least two")
    if multi_label:
        everywhere = [label for label, count in in_train.items() if count == len(train_rows)]
        mistakes += [
            f"label {label!r} is on every training image; there is nothing to tell apart, drop it"
            for label in everywhere
        ]
    return mistakes


def _metric_mistakes(metric: Metric, multi_label: bool) -> list[str]:
    """A metric that does not fit the kind of labels."""
    if multi_label == (metric == "map_11_point"):
        return []
    kind = "several labels an image" if multi_label else "one label an image"
    fit = "map_11_point" if multi_label else "top_1 or mean_per_class"
    return [f"metric {metric!r} does not fit {kind}; use {fit}"]
