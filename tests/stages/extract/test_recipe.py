"""The ingredients of a cache key change with everything that changes features, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.backbones import resolve
from stages.errors import BackboneError, DatasetError
from stages.extract import RECIPE_VERSION, coordinates, ingredients
from stages.records import Backbone, Split

BACKBONE = resolve("resnet18.a1_in1k", weights="random")
SPLIT = Split("train", ("a", "b"), (Path("a.png"), Path("b.png")), np.array([0, 1]))


def made(backbone: Backbone = BACKBONE, split: Split = SPLIT, **options: Any) -> dict[str, Any]:
    arguments = {"image_sha256": ("1", "2"), "class_names": ("x", "y"), **options}
    return ingredients(backbone, split, **arguments)


def with_preprocessing(**options: Any) -> Backbone:
    return replace(BACKBONE, preprocessing=replace(BACKBONE.preprocessing, **options))


def test_ingredients_are_plain_json_and_name_the_recipe() -> None:
    got = made()
    assert json.loads(json.dumps(got)) == got
    assert got["recipe_version"] == RECIPE_VERSION
    assert got["samples"] == [["a", "1"], ["b", "2"]]
    assert got["weights_sha256"] == BACKBONE.weights.sha256


CHANGES: dict[str, Callable[[], dict[str, Any]]] = {
    "backbone": lambda: made(replace(BACKBONE, name="resnet34")),
    "weights": lambda: made(replace(BACKBONE, weights=replace(BACKBONE.weights, sha256="0"))),
    "pooling": lambda: made(replace(BACKBONE, pooling="max")),
    "size": lambda: made(with_preprocessing(size=128)),
    "interpolation": lambda: made(with_preprocessing(interpolation="box")),
    "crop": lambda: made(with_preprocessing(crop="center")),
    "mean": lambda: made(with_preprocessing(mean=(0.0, 0.0, 0.0))),
    "std": lambda: made(with_preprocessing(std=(1.0, 1.0, 1.0))),
    "precision": lambda: made(precision="bfloat16"),
    "policy": lambda: made(on_bad_image="exclude"),
    "image bytes": lambda: made(image_sha256=("1", "3")),
    "ids": lambda: made(split=replace(SPLIT, ids=("a", "c"))),
    "order": lambda: made(split=SPLIT.take(np.array([1, 0])), image_sha256=("2", "1")),
    "labels": lambda: made(split=replace(SPLIT, labels=np.array([1, 1]))),
    "class names": lambda: made(class_names=("x", "z")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_features_or_labels_changes_the_ingredients(what: str) -> None:
    assert CHANGES[what]() != made()


def test_what_changes_neither_changes_nothing() -> None:
    assert made(replace(BACKBONE, imagenet_top1=0.1, variant="b")) == made()
    assert made(split=replace(SPLIT, name="test", paths=(Path("x"), Path("y")))) == made()
    assert made(with_preprocessing(crop_fraction=0.5)) == made()
    assert (
        made(replace(BACKBONE, weights=replace(BACKBONE.weights, label="file:a", path=Path("a")))) == made()
    )
    wide = replace(SPLIT, labels=SPLIT.labels.astype(">i8").astype(np.int64))
    assert made(split=wide) == made()


def test_only_the_annotations_change_when_only_labels_change() -> None:
    before, after = made(), CHANGES["labels"]()
    assert [k for k in before if before[k] != after[k]] == ["annotations_sha256"]


def test_multi_label_shapes_are_told_apart() -> None:
    flat = replace(SPLIT, labels=np.zeros((2, 2), np.int8))
    tall = replace(SPLIT, labels=np.zeros((2, 3), np.int8))
    assert made(split=flat) != made(split=tall)


def test_unknown_weights_and_missing_hashes_are_refused() -> None:
    with pytest.raises(BackboneError, match="hash of its weights"):
        made(replace(BACKBONE, weights=replace(BACKBONE.weights, sha256=None)))
    with pytest.raises(DatasetError, match="1 image hashes for 2 rows"):
        made(image_sha256=("1",))


def test_coordinates_tell_people_what_it_is() -> None:
    got = coordinates(with_preprocessing(size=160, crop="center", crop_fraction=0.875), "pets", "train")
    assert got["backbone"] == "resnet18.a1_in1k"
    assert got["weights"] == "random:0"
    assert (got["dataset"], got["split"]) == ("pets", "train")
    assert got["preprocessing"] == "160 bicubic center 0.875"
    assert all(isinstance(v, str) for v in got.values())
