"""From the names of a study to what they stand for: backbones with weights, data sets with rows.

All mistakes of all tables are gathered before anything is refused, so that one look mends them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cache import FileDigests, InvalidInputError, sha256_of
from cache.names import check_class_names, check_text
from pipeline.cache_folder import cache_root
from pipeline.config import Study
from pipeline.duplicates import without_images_of_test
from pipeline.errors import StudyError
from pipeline.tables import BackboneTable, DatasetTable
from stages.backbones import resolve as resolve_backbone
from stages.datasets import load_dataset
from stages.errors import DatasetAbsentError, DatasetError, InputError
from stages.records import Backbone, Dataset, Preprocessing, Progress, SplitName, Weights

CACHED_ONLY = 'known by cached features only (source = "cached")'
"""Why there are no images of a data set that was imported; the study says so itself."""


@dataclass(frozen=True, eq=False)
class Images:
    """A data set whose images are on this machine; equal to itself alone, so that what is made of it is kept."""

    dataset: Dataset
    image_sha256: Mapping[SplitName, tuple[str, ...]]
    """Of the file behind each row."""

    @cached_property
    def by_file(self) -> dict[Path, str]:
        """The hash of every file, one mapping for all jobs."""
        splits = self.dataset.splits
        return {
            path: sha256
            for name, digests in self.image_sha256.items()
            for path, sha256 in zip(splits[name].paths, digests, strict=True)
        }

    @cached_property
    def digests(self) -> dict[SplitName, str]:
        """One digest of each split's rows: ids, image bytes, labels, groups."""
        return {
            name: sha256_of(
                {
                    "rows": list(zip(rows.ids, self.image_sha256[name], strict=True)),
                    "labels": rows.labels.tolist(),
                    "class_names": self.dataset.class_names,
                    "groups": rows.groups,
                }
            )
            for name, rows in self.dataset.splits.items()
        }


@dataclass(frozen=True)
class Resolved:
    """What the names of a study stand for on this machine."""

    backbones: tuple[Backbone, ...]
    images: Mapping[str, Images]
    """By data set name; a data set whose images are not here is absent."""
    absent: Mapping[str, str]
    """Data sets whose images are not here, with the reason: their features may be cached all the same."""
    listed: Mapping[str, Dataset] = field(default_factory=dict)
    """Of these the ones whose rows and labels are known all the same, from the table that lists them."""

    def rows_of(self, name: str) -> Dataset | None:
        """Return a data set's rows and labels, as far as they are known here."""
        return self.images[name].dataset if name in self.images else self.listed.get(name)


def with_network(resolved: Resolved) -> tuple[Backbone, ...]:
    """Return the backbones that can be run: not those known by imported features only."""
    return tuple(b for b in resolved.backbones if b.weights.kind != "cached")


def resolve(
    study: Study,
    *,
    root: Path | None = None,
    need_images: bool = True,
    rehash: bool = False,
    progress: Progress | None = None,
) -> Resolved:
    """Look up every backbone and data set of a study.

    Parameters
    ----------
    study : Study
        From `pipeline.config.load_study`.
    root : Path, optional
        The cache's root; default `cache_root`.
    need_images : bool
        Whether images or weights that are not on this machine are a mistake: not for those who only
        probe cached features and join.
    rehash : bool
        Hash every file again instead of trusting what is remembered by path, size, time and inode.
    progress : Progress, optional
        Told about the unpacking and hashing of images.

    Raises
    ------
    StudyError
        With one line per mistake.
    """
    root = root or cache_root()
    digests = FileDigests(root / "digests.sqlite")
    mistakes: list[str] = []
    backbones: list[Backbone] = []
    for i, table in enumerate(study.backbone, start=1):
        try:
            backbones.append(_backbone(table, study, digests, rehash, must_exist=need_images))
        except InputError as error:
            mistakes.append(f"backbone[{i}]: {error}")
    loaded: dict[str, Dataset] = {}
    absent: dict[str, str] = {}
    listed: dict[str, Dataset] = {}
    for i, entry in enumerate(study.dataset, start=1):
        if entry.source == "cached":
            absent[entry.name] = CACHED_ONLY
            continue
        try:
            loaded[entry.name] = read_dataset(entry, study.folder, root, fetch=need_images, progress=progress)
        except DatasetAbsentError as error:
            if need_images:
                mistakes.append(f"dataset[{i}]: {error}")
            mistakes += [f"dataset[{i}]: {line}" for line in error.mistakes]
            absent[entry.name] = str(error)
            if error.listed is not None:
                listed[entry.name] = error.listed
        except InputError as error:
            mistakes += [f"dataset[{i}]: {line}" for line in str(error).splitlines()]
    if mistakes:
        raise StudyError(mistakes)
    images = _hash_images(loaded, digests, rehash, progress)
    return Resolved(tuple(backbones), _without_duplicates(study, images), absent, listed)


def _backbone(
    table: BackboneTable, study: Study, digests: FileDigests, rehash: bool, *, must_exist: bool
) -> Backbone:
    """Resolve one backbone and hash its weights file where it is here."""
    if table.weights == "cached":
        return _imported(table, study.extract.size)
    backbone = resolve_backbone(
        table.name,
        weights=table.weights,
        seed=table.seed,
        size=table.size or study.extract.size,
        crop=study.extract.crop,
        interpolation=table.interpolation,
        mean=table.mean,
        std=table.std,
        pooling=table.pooling,
        imagenet_top1=table.imagenet_top1,
        variant=table.variant,
        base_folder=study.folder,
        must_exist=must_exist,
    )
    if backbone.weights.path is None or backbone.weights.sha256:
        return backbone
    sha256 = digests.digest(backbone.weights.path, rehash=rehash)
    return replace(backbone, weights=replace(backbone.weights, sha256=sha256))


def _imported(table: BackboneTable, size: int | None) -> Backbone:
    """Return a backbone that is known by imported features only: no network, no preprocessing of ours but a size."""
    nothing = Preprocessing(
        table.size or size or 0, "nearest", "whole", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    )
    return Backbone(
        name=table.name,
        weights=Weights(kind="cached", label="cached"),
        preprocessing=nothing,
        dimension=0,
        imagenet_top1=table.imagenet_top1,
        variant=table.variant,
    )


def read_dataset(
    table: DatasetTable,
    folder: Path,
    root: Path,
    *,
    fetch: bool = True,
    beside: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Read one data set of a study: its table of files, labels and splits.

    Parameters
    ----------
    table : DatasetTable
        One ``[[dataset]]``.
    folder : Path
        What relative paths are relative to: the study's.
    root : Path
        The cache's root; images that come packed are written below it.
    fetch : bool
        Whether ``hf:`` may ask the library, and the library the hub, for what was not read before.
    beside : bool
        Whether to compare with a manifest that lies beside the images.
    progress : Progress, optional
        Told of images that are unpacked.

    Raises
    ------
    DatasetError
        One line per mistake.
    """
    dataset = load_dataset(
        table.name,
        table.source,
        base=folder,
        unpack_to=root / "images",
        metric=table.metric,
        multi_label=table.multi_label,
        test_fraction=table.test_fraction,
        split_seed=table.split_seed,
        root=table.root,
        allow_size_mismatch=table.allow_size_mismatch,
        manifest=table.manifest,
        image_column=table.image_column,
        label_column=table.label_column,
        fetch=fetch,
        manifest_beside=beside,
        progress=progress,
    )
    _check_names(dataset)
    return dataset


def _check_names(dataset: Dataset) -> None:
    """Refuse now the class names and ids that the cache would refuse once their features are computed."""
    try:
        check_class_names(dataset.class_names)
        for split in dataset.splits.values():
            for id_ in split.ids:
                check_text(id_, "id")
    except InvalidInputError as error:
        raise DatasetError(f"{dataset.name}: {error}") from error


def _without_duplicates(study: Study, images: Mapping[str, Images]) -> dict[str, Images]:
    """Leave out what stands in test too, where a data set's table says so."""
    kept, mistakes = dict(images), []
    for i, table in enumerate(study.dataset, start=1):
        if table.exclude_duplicates and table.name in images:
            try:
                kept[table.name] = without_images_of_test(images[table.name])
            except DatasetError as error:
                mistakes.append(f"dataset[{i}]: {error}")
    if mistakes:
        raise StudyError(mistakes)
    return kept


def _hash_images(
    loaded: Mapping[str, Dataset], digests: FileDigests, rehash: bool, progress: Progress | None
) -> dict[str, Images]:
    """Hash the images of all data sets in one go, so that one bar shows it."""
    paths = [p for dataset in loaded.values() for split in dataset.splits.values() for p in split.paths]
    hashes = iter(digests.digest_many(paths, progress=progress, rehash=rehash))
    return {
        name: Images(
            dataset,
            {
                split_name: tuple(next(hashes) for _ in range(len(split)))
                for split_name, split in dataset.splits.items()
            },
        )
        for name, dataset in loaded.items()
    }


def without(images: Images, ids: Mapping[SplitName, set[str]]) -> Images:
    """Return a data set without some of its rows."""
    splits, digests, notes = {}, {}, []
    for name, split in images.dataset.splits.items():
        kept = np.array([i for i, id_ in enumerate(split.ids) if id_ not in ids[name]], dtype=np.intp)
        splits[name] = split.take(kept)
        digests[name] = tuple(images.image_sha256[name][i] for i in kept)
        if len(kept) < len(split):
            notes.append(f"{len(split) - len(kept)} unreadable images of {name} left out of training")
    return Images(images.dataset.with_splits(splits, *notes), digests)
