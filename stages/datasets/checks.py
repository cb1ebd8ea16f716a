"""What may be wrong with the rows of a data set: one line a mistake, all mistakes at once."""

from __future__ import annotations

import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from stages.datasets.official import PAGE, POINTER, impostor
from stages.datasets.rows import SHOWN, Row, names_of, some
from stages.names import nearest
from stages.records import Metric, SplitName

SMALL = 1024
"""Bytes below which a file is opened: Git LFS pointers are always smaller, web pages of errors often."""
IMPOSTORS = {
    POINTER: ("Git LFS pointers", "run git lfs pull"),
    PAGE: ("web pages", "the download went wrong, fetch them again"),
}
"""What took an image's place -> what it is called, and what to do."""


def mistakes_of(rows: Sequence[Row], metric: Metric, multi_label: bool) -> list[str]:
    """Return what is wrong with ids, splits, labels and metric, a line each; files are not looked at.

    Parameters
    ----------
    rows : sequence of Row
        At least one.
    metric : Metric
        That shall be reported.
    multi_label : bool
        Whether an image may bear several labels.
    """
    return [
        *_duplicate_ids(rows),
        *_empty_splits(rows),
        *(_mark_mistakes(rows) if multi_label else []),
        *_twin_names(rows, multi_label),
        *_label_mistakes(rows, multi_label),
        *_metric_mistakes(metric, multi_label),
    ]


def look_at_files(rows: Sequence[Row]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the ids of images that are not there, and by kind of those whose place something else took."""
    missing: list[str] = []
    impostors: dict[str, list[str]] = {}
    for row in rows:
        try:
            status = row.path.stat()
        except (OSError, ValueError):  # a name with a null byte in it is nowhere
            missing.append(row.id)
            continue
        if not stat.S_ISREG(status.st_mode):
            missing.append(row.id)
        elif status.st_size < SMALL and (kind := impostor(row.path.read_bytes())):
            impostors.setdefault(kind, []).append(row.id)
    return missing, impostors


def _duplicate_ids(rows: Sequence[Row]) -> list[str]:
    """Ids listed more than once."""
    twice = [id_ for id_, count in Counter(row.id for row in rows).items() if count > 1]
    return [f"{len(twice)} ids are listed more than once: {some(twice)}; keep one row each"] if twice else []


def _present(label: str, multi_label: bool) -> list[str]:
    """Class names that count as positive examples."""
    return [p for p in label.split("|") if p and not p.startswith("?")] if multi_label else [label]


def impostor_mistakes(impostors: Mapping[str, Sequence[str]], total: int) -> list[str]:
    """Files that are no images but what was left in their place."""
    return [
        f"{len(ids)} of {total} images are {IMPOSTORS[kind][0]}: {some(ids)}; {IMPOSTORS[kind][1]}"
        for kind, ids in impostors.items()
    ]


def missing_mistakes(missing: Sequence[str], total: int, what_now: str) -> list[str]:
    """Files that are listed and not there."""
    if not missing:
        return []
    return [f"{len(missing)} of {total} images are not there: {some(missing)}; {what_now}"]


def _empty_splits(rows: Sequence[Row]) -> list[str]:
    """Splits that must have rows and have none."""
    found = {row.split for row in rows}
    return [
        f"split {split!r} has no rows (found: {', '.join(sorted(found))}); add them"
        for split in cast("tuple[SplitName, ...]", ("train", "test"))
        if split not in found
    ]


def _mark_mistakes(rows: Sequence[Row]) -> list[str]:
    """Labels of several names that contradict themselves, or whose names are none."""
    mistakes = []
    for row in rows:
        parts = [part for part in row.label.split("|") if part]
        ignored = {part[1:] for part in parts if part.startswith("?")}
        if "" in ignored or any(name.startswith("?") for name in ignored):
            mistakes.append(f"label {row.label!r} of {row.id!r}: a ? belongs before a name; mend the row")
        elif both := ignored.intersection(parts):
            name = min(both)
            mistakes.append(
                f"label {row.label!r} of {row.id!r}: {name!r} is both there and ignored; keep one"
            )
    return mistakes[:SHOWN]


def _twin_names(rows: Sequence[Row], multi_label: bool) -> list[str]:
    """Class names of the same letters in two ways of writing them in Unicode: nobody sees that they are two."""
    names: dict[str, set[str]] = {}
    for label in {row.label for row in rows}:
        for name in names_of(label, multi_label):
            names.setdefault(unicodedata.normalize("NFC", name), set()).add(name)
    return [
        f"class {name!r} is written in {len(ways)} ways that look alike ({', '.join(map(ascii, sorted(ways)))}); "
        "write it in one"
        for name, ways in names.items()
        if len(ways) > 1
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
