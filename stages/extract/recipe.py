"""What decides the features of a split, written down as plain JSON values; no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from stages.errors import BackboneError, DatasetError
from stages.records import Backbone, FeatureTable, ImageErrorPolicy, Preprocessing, Split

RECIPE_VERSION = 1
"""Changes only when the same ingredients would give other features."""

DTYPE = "float32"
"""Of the features as the forward pass hands them out."""


def ingredients(
    backbone: Backbone,
    split: Split,
    image_sha256: Sequence[str],
    class_names: Sequence[str],
    *,
    precision: str = "float32",
    on_bad_image: ImageErrorPolicy = "error",
) -> dict[str, Any]:
    """Return everything that decides the content of a cache entry.

    Parameters
    ----------
    backbone : Backbone
        With ``weights.sha256`` known.
    split : Split
        n rows.
    image_sha256 : sequence of str
        (n,) of the bytes of each row's image file.
    class_names : sequence of str
        K names.
    precision : str
        Of the forward pass.
    on_bad_image : {"error", "exclude"}
        What is done with unreadable images.

    Returns
    -------
    dict
        Plain JSON values. Features depend on all but ``annotations_sha256``.

    Raises
    ------
    BackboneError
        The hash of the weights is not known yet.
    DatasetError
        There are not as many hashes as rows.
    """
    if backbone.weights.sha256 is None:
        raise BackboneError(
            f"{backbone.label}: the hash of its weights is needed first: get the weights file"
        )
    if len(image_sha256) != len(split):
        raise DatasetError(f"{split.name}: {len(image_sha256)} image hashes for {len(split)} rows")
    return {
        "recipe_version": RECIPE_VERSION,
        "backbone": backbone.name,
        "weights_sha256": backbone.weights.sha256,
        "pooling": backbone.pooling or "default",
        "preprocessing": preprocessing_facts(backbone.preprocessing),
        "dtype": DTYPE,
        "precision": precision,
        "on_bad_image": on_bad_image,
        "samples": [[sample, digest] for sample, digest in zip(split.ids, image_sha256, strict=True)],
        "annotations_sha256": annotations_sha256(split, class_names),
    }


def preprocessing_facts(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return a preprocessing as JSON values; the fraction of a crop that is not made is left out."""
    facts = asdict(preprocessing) | {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}
    if preprocessing.crop == "whole":
        del facts["crop_fraction"]
    return facts


def annotations_sha256(split: Split, class_names: Sequence[str]) -> str:
    """Return the SHA-256 over labels and groups, in the order of the rows, and class names."""
    labels = split.labels
    head = {
        "class_names": list(class_names),
        "groups": None if split.groups is None else list(split.groups),
        "dtype": str(labels.dtype),
        "shape": list(labels.shape),
    }
    digest = hashlib.sha256(json.dumps(head, sort_keys=True, ensure_ascii=False).encode())
    digest.update(labels.astype(labels.dtype.newbyteorder("<"), order="C").tobytes())
    return digest.hexdigest()


def contradiction(
    facts: Mapping[str, Any],
    rows: FeatureTable,
    excluded: Sequence[str],
) -> str | None:
    """Say in what features and annotations are not those that the `ingredients` of their key speak of.

    Parameters
    ----------
    facts : mapping
        From `ingredients`.
    rows : FeatureTable
        n rows that are said to have been made from them.
    excluded : sequence of str
        Ids of images that could not be read. Where there are any, the digest of the labels, which covers
        theirs, says nothing of the others'.

    Returns
    -------
    str or None
        None where nothing contradicts. Whether the features are those of the images only running them again
        tells.
    """
    left_out = set(excluded)
    samples = [name for name, _ in facts["samples"]]
    if tuple(name for name in samples if name not in left_out) != rows.ids or not left_out <= set(samples):
        return "its ids are not those of the images in its key"
    if rows.features.dtype != facts["dtype"]:
        return f"its features are {rows.features.dtype}, its key says {facts['dtype']}"
    if left_out:
        return None if facts["on_bad_image"] == "exclude" else "its key allows for no image to be left out"
    told = Split("train", rows.ids, (), np.asarray(rows.labels), rows.groups)
    if annotations_sha256(told, rows.class_names) != facts["annotations_sha256"]:
        return "its labels, class names or groups are not those in its key"
    return None


def coordinates(
    backbone: Backbone, dataset_name: str, split_name: str, *, precision: str = "float32"
) -> dict[str, str]:
    """Return what people, and machines without the images, find an entry by.

    Examples
    --------
    >>> from stages.backbones import resolve
    >>> coordinates(resolve("resnet18.a1_in1k", weights="random"), "pets", "train")["weights"]
    'random:0'
    """
    facts = backbone.preprocessing
    crop = facts.crop if facts.crop == "whole" else f"{facts.crop} {facts.crop_fraction:g}"
    return {
        "backbone": backbone.name,
        "weights": backbone.weights.label,
        "pooling": backbone.pooling or "default",
        "dataset": dataset_name,
        "split": split_name,
        "preprocessing": f"{facts.size} {facts.interpolation} {crop}",
        "precision": precision,
    }
