"""Whether a cached entry has the rows and labels that a data set lists, where there are no images to hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np

from cache import Entry
from stages.datasets.manifest import label_texts
from stages.extract.recipe import annotations_sha256
from stages.records import Dataset, Split, SplitName

_FEW = 3


def unlike(entry: Entry, dataset: Dataset, split: SplitName, *, source: str, may_lack: bool) -> str:
    """Say in what an entry differs from a data set as it is listed; nothing where it does not.

    Parameters
    ----------
    entry : Entry
        Found by its coordinates.
    dataset : Dataset
        Its files are not looked at.
    split : SplitName
        Which of its splits the entry stands for.
    source : str
        Where the list comes from, for people.
    may_lack : bool
        Whether rows may have been left out: of duplicates nothing is known without the images.
    """
    samples = entry.key.ingredients.get("samples")
    if samples is None:
        return _unlike_of_ones_own(entry, dataset, split, source)
    ids = [pair[0] for pair in samples]
    rows = _without_others(dataset.splits[split], ids) if may_lack else dataset.splits[split]
    if list(rows.ids) != ids:
        return _rows_apart(rows.ids, ids, source)
    if annotations_sha256(rows, dataset.class_names) == entry.key.ingredients.get("annotations_sha256"):
        return ""
    other = f"groups, or whether an image may have several labels, are other than in {source}"
    return next(_labels_apart(entry, rows, dataset.class_names, source), other)


def _unlike_of_ones_own(entry: Entry, dataset: Dataset, split: SplitName, source: str) -> str:
    """Compare features of one's own, whose rows may be called and ordered otherwise: their labels count then."""
    rows = dataset.splits[split]
    if set(rows.ids) != set(entry.ids):
        return ""
    return next(_labels_apart(entry, rows, dataset.class_names, source), "")


def _without_others(rows: Split, ids: Sequence[str]) -> Split:
    """Keep the rows that an entry has too."""
    known = set(ids)
    return rows.take(np.array([i for i, id_ in enumerate(rows.ids) if id_ in known], dtype=np.intp))


def _rows_apart(ours: Sequence[str], theirs: Sequence[str], source: str) -> str:
    """Name the first row that is another one."""
    for number, (here, there) in enumerate(zip_longest(ours, theirs), start=1):
        if here != there:
            names = ("no such row" if id_ is None else repr(id_) for id_ in (here, there))
            return f"row {number} is {next(names)} in {source}, {next(names)} in the cached features"
    return ""


def _labels_apart(entry: Entry, rows: Split, class_names: Sequence[str], source: str) -> Iterator[str]:
    """Name the first image whose label differs, else the classes that do."""
    here = dict(zip(rows.ids, label_texts(rows.labels, class_names), strict=True))
    there = label_texts(entry.labels, entry.metadata["class_names"])
    for id_, label in zip(entry.ids, there, strict=True):
        if here[id_] != label:
            yield f"{id_!r} is {here[id_]!r} in {source}, {label!r} in the cached features"
    theirs = entry.metadata["class_names"]
    if tuple(class_names) != tuple(theirs):
        more, fewer = sorted(set(class_names) - set(theirs)), sorted(set(theirs) - set(class_names))
        yield f"the classes of {source} {_difference(more, fewer)} the cached features"


def _difference(more: Sequence[str], fewer: Sequence[str]) -> str:
    """Say which names one list has that another lacks, and the other way round."""
    parts = [f"have {', '.join(map(repr, more[:_FEW]))} beyond those of"] if more else []
    parts += [f"lack {', '.join(map(repr, fewer[:_FEW]))} of"] if fewer else []
    return " and ".join(parts) or "stand in another order than in"
