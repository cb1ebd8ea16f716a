"""From raw rows to a checked `Dataset`.

Every source ends here, so that every data set is checked by the same rules and reports all its mistakes
at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stages.datasets.checks import impostor_mistakes, look_at_files, missing_mistakes, mistakes_of
from stages.datasets.rows import Row, names_of, some
from stages.errors import DatasetAbsentError, DatasetError
from stages.records import SPLITS, Dataset, Metric, Split, SplitName


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
        With one line per mistake: no rows, duplicate ids, missing files, Git LFS pointers or web pages in place of
        images, a split without rows, one class, a class in validation or test that train lacks, labels that
        contradict themselves, a metric that does not fit the labels.
    DatasetAbsentError
        None of the files is there; it holds the data set as listed, or what is wrong with the list.
    """
    if not rows:
        raise DatasetError(f"{where}: no images listed; expected at least one row per class and split")
    if multi_label is None:
        multi_label = metric == "map_11_point" or any("|" in r.label or r.label.startswith("?") for r in rows)
    chosen: Metric = metric or ("map_11_point" if multi_label else "top_1")
    missing, impostors = look_at_files(rows)
    absent = ""
    mistakes = [*impostor_mistakes(impostors, len(rows)), *mistakes_of(rows, chosen, multi_label)]
    if len(missing) == len(rows):
        absent = (
            f"{where}: none of the {len(rows)} images is there: {some(missing)} "
            f"(looked for {rows[0].path}); {if_missing}"
        )
    else:
        mistakes = [*missing_mistakes(missing, len(rows), if_missing), *mistakes]
    lines = [f"{where}: {mistake}" for mistake in mistakes]
    if lines:
        raise DatasetAbsentError(absent, mistakes=lines) if absent else DatasetError("\n".join(lines))
    class_names = tuple(sorted({label for row in rows for label in names_of(row.label, multi_label)}))
    dataset = Dataset(
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
    if absent:
        raise DatasetAbsentError(absent, dataset)
    return dataset


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
