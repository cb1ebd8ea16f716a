"""The small training sets of the experiment with few examples: which rows of a data set each of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import Entry
from pipeline.errors import StudyError
from pipeline.resolve import Images
from pipeline.tables_experiments import FewExamplesTable
from pipeline.training_cell import with_validation
from stages.analysis.few_examples import Subset, doublings, draw_subsets
from stages.errors import InputError
from stages.records import Dataset, Metric, Split, SplitName


@dataclass(frozen=True)
class SmallSet:
    """A data set of whose training images only a few a class are left."""

    per_class: int
    repeat: int
    """Which of the draws of this number."""
    images: Images
    """With the rows to fit as train, those to choose on as validation, and test whole."""

    @property
    def suffix(self) -> str:
        """What its jobs have behind the data set's name."""
        return f",few={self.per_class},subset={self.repeat}"


def small_sets(table: FewExamplesTable, images: Images) -> list[SmallSet]:
    """Draw every subset of a data set.

    Parameters
    ----------
    table : FewExamplesTable
        How many of what size, and the seed.
    images : Images
        Single-label. Without a validation split of its own, a stratified share of train becomes one first.

    Raises
    ------
    StudyError
        Several labels an image, or more examples asked for than the smallest class has.
    """
    dataset = images.dataset
    aside = ""
    try:
        if dataset.multi_label:
            raise InputError("an image has several labels here: a number of examples a class means nothing")
        if "validation" not in dataset.splits:
            images = _with_held_out(images, table)
            aside = (
                f" (few_examples.validation_fraction = {table.validation_fraction:g} of train is set aside)"
            )
        train, held = (images.dataset.splits[name] for name in ("train", "validation"))
        numbers = table.per_class or doublings(train.labels, dataset.class_names, table.largest)
        subsets = draw_subsets(
            train.labels,
            dataset.class_names,
            numbers,
            validation_labels=held.labels,
            repeats=table.repeats,
            seed=table.seed,
            draw=table.draw,
            rule=table.validation,
        )
    except InputError as error:
        raise StudyError(f"few_examples: {dataset.name}: {error}{aside}") from error
    return [SmallSet(s.per_class, s.repeat, _smaller(images, s)) for s in subsets]


def _with_held_out(images: Images, table: FewExamplesTable) -> Images:
    """Turn a share of train into the validation split that the data set lacks."""
    try:
        dataset = with_validation(images, table.validation_fraction, seed=table.seed)
    except StudyError as error:
        raise InputError(
            "no class has a training image to spare as validation: add images, or name the data sets that have "
            "enough as few_examples.datasets"
        ) from error
    return _hashed(dataset, images)


def _hashed(dataset: Dataset, images: Images) -> Images:
    """Return other splits of the same images with their hashes."""
    known = {
        id_: sha256
        for name, split in images.dataset.splits.items()
        for id_, sha256 in zip(split.ids, images.image_sha256[name], strict=True)
    }
    return Images(
        dataset, {name: tuple(known[i] for i in split.ids) for name, split in dataset.splits.items()}
    )


def _smaller(images: Images, subset: Subset) -> Images:
    """Return the data set with a subset's rows."""
    splits = images.dataset.splits
    chosen = {
        **splits,
        "train": splits["train"].take(subset.train),
        "validation": splits["validation"].take(subset.validation),
    }
    note = (
        f"{subset.per_class} training images a class, subset {subset.repeat} (seed {subset.seed}, {subset.draw}); "
        f"chosen on {len(subset.validation)} of {len(splits['validation'])} validation rows "
        f"({subset.rule}), not refitted on them"
    )
    return _hashed(images.dataset.with_splits(chosen, note), images)


def rows_of_entries(name: str, metric: Metric, entries: Mapping[SplitName, Entry]) -> Images:
    """Return a data set as its cached features know it: ids, labels, groups and hashes, but no images."""
    splits, hashes = {}, {}
    for split, entry in entries.items():
        groups: Sequence[str | None] = entry.row_metadata.get("group") or ()
        splits[split] = Split(
            name=split,
            ids=entry.ids,
            paths=(Path(),) * len(entry.ids),
            labels=entry.labels,
            groups=tuple(g or "" for g in groups) if any(groups) else None,
        )
        known = dict(entry.key.ingredients.get("samples", ()))
        hashes[split] = tuple(known.get(id_, "") for id_ in entry.ids)
    test = entries["test"]
    multi_label = np.ndim(test.labels) == 2
    return Images(Dataset(name, tuple(test.metadata["class_names"]), multi_label, metric, splits), hashes)
