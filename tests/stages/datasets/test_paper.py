"""The paper's twelve data sets: official layouts, splits, labels, metrics, sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.datasets import PAPER_SETS, load_dataset
from stages.errors import DatasetError
from stages.metrics import evaluate
from tests.stages.datasets import releases
from tests.stages.datasets.releases import RELEASES, SIZES, load, said

PART = {"train": ("train", "trainval", "val", "any"), "validation": ("val",), "test": ("test", "any")}


def test_every_set_of_the_paper_has_a_release_here() -> None:
    assert set(RELEASES) == set(PAPER_SETS)


def test_sizes_and_ids(release) -> None:
    name, root = release
    dataset = load(name, root)
    sizes = {split: len(rows) for split, rows in dataset.splits.items()}
    assert (sizes["train"] + sizes.get("validation", 0), sizes["test"]) == SIZES[name]
    assert dataset.metric == PAPER_SETS[name].metric
    for split in dataset.splits.values():
        assert list(split.ids) == sorted(split.ids)
        assert all(path.is_file() for path in split.paths)
    assert any("sizes differ from the paper's, as allowed" in note for note in dataset.notes)


def test_labels_and_splits_are_those_that_the_images_say(release) -> None:
    name, root = release
    dataset = load(name, root)
    for split_name, split in dataset.splits.items():
        for path, label in zip(split.paths, split.labels, strict=True):
            if name.startswith("cifar"):
                with Image.open(path) as image:
                    shown = releases.CIFAR_NAMES[image.getpixel((0, 0))[0]]
            else:
                part, shown = said(path)
                official = PAPER_SETS[name].official_validation
                wanted = (
                    PART[split_name] if official or split_name == "test" else ("train", "trainval", "any")
                )
                assert part in wanted or name == "voc2007"
            if name != "voc2007":
                assert dataset.class_names[label] == shown


def test_scores(release) -> None:
    name, root = release
    dataset = load(name, root)
    test = dataset.splits["test"]
    one_hot = test.labels == 1 if dataset.multi_label else np.eye(len(dataset.class_names))[test.labels]
    right = one_hot.astype(float)
    assert evaluate(dataset.metric, test.labels, right) == 1.0
    assert evaluate(dataset.metric, test.labels, -right) < 1.0


def test_voc_counts_difficult_objects_neither_way(tmp_path) -> None:
    releases.voc2007(tmp_path)
    dataset = load("voc2007", tmp_path)
    assert dataset.multi_label
    assert dataset.class_names == ("cat", "dog", "train")
    assert {name: dict(zip(s.ids, s.labels.tolist(), strict=True)) for name, s in dataset.splits.items()} == {
        "train": {"000005.jpg": [0, 1, 1], "000012.jpg": [1, 0, -1]},
        "validation": {"000007.jpg": [1, -1, 0], "000009.jpg": [0, 0, -1]},
        "test": {"000001.jpg": [1, 0, 0], "000002.jpg": [-1, 1, 1]},
    }


@pytest.mark.parametrize("name", [n for n, facts in PAPER_SETS.items() if not facts.official_validation])
def test_drawn_validation_sets_never_touch_test_and_follow_the_seed(tmp_path, name) -> None:
    RELEASES[name](tmp_path)
    first, same, other = (load(name, tmp_path, split_seed=seed) for seed in (0, 0, 1))
    held = set(first.splits["validation"].ids)
    assert held == set(same.splits["validation"].ids)
    assert any("no official validation set" in note and "seed 0" in note for note in first.notes)
    if name != "caltech101":
        assert first.splits["test"].ids == other.splits["test"].ids
        for dataset in (first, other):
            assert not set(dataset.splits["validation"].ids) & set(dataset.splits["test"].ids)
    every = {id_ for split in first.splits.values() for id_ in split.ids}
    assert every == {id_ for split in other.splits.values() for id_ in split.ids}


def test_caltech_draws_thirty_a_class_and_records_the_seed(tmp_path) -> None:
    releases.caltech101(tmp_path)
    splits = {}
    for seed in (0, 1):
        dataset = load("caltech101", tmp_path, split_seed=seed)
        train = [*dataset.splits["train"].labels, *dataset.splits["validation"].labels]
        assert np.bincount(train).tolist() == [30, 30, 30]
        assert "BACKGROUND_Google" in dataset.class_names
        notes = " ".join(dataset.notes)
        assert f"30 random images a class for training, seed {seed}" in notes
        assert "1 files are not part of the set: 'BACKGROUND_Google/tmp'" in notes
        splits[seed] = dataset.splits["test"].ids
    assert splits[0] != splits[1]


# Where releases may lie


@pytest.mark.parametrize(
    ("name", "usual", "place"),
    [
        ("oxford_pets", "oxford-iiit-pet", "oxford_pets"),
        ("oxford_pets", "oxford-iiit-pet", "."),
        ("dtd", "dtd", "dtd/dtd"),
        ("caltech101", "caltech101", "caltech-101"),
        ("caltech101", "caltech101", "."),
        ("voc2007", "VOCdevkit/VOC2007", "voc2007"),
        ("voc2007", "VOCdevkit/VOC2007", "VOC2007"),
        ("sun397", "SUN397/Partitions", "Partitions"),
        ("sun397", "SUN397/Partitions/*", "."),
        ("caltech101", "caltech101/101_ObjectCategories", "caltech101/caltech-101/101_ObjectCategories"),
        ("birdsnap", "birdsnap/download/images", "birdsnap/images"),
    ],
)
def test_other_usual_places(tmp_path, name, usual, place) -> None:
    RELEASES[name](tmp_path / "first")
    root = tmp_path / "second"
    if usual.endswith("*"):
        root = tmp_path / "first"
        for path in list(root.glob(usual)):
            path.rename(root / place / path.name)
    elif place == ".":
        root = tmp_path / "first" / usual
    else:
        (tmp_path / "first").rename(root)
        aside = (root / usual).rename(root / "aside")
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        aside.rename(root / place)
    dataset = load(name, root, unpack_to=tmp_path)
    assert len(dataset.splits["test"]) == SIZES[name][1]


def test_the_root_may_come_from_the_environment_and_another_name_from_the_study(
    tmp_path, monkeypatch
) -> None:
    releases.dtd(tmp_path)
    monkeypatch.setenv("PENULTIMATE_DATASETS", str(tmp_path))
    dataset = load_dataset("textures of ours", "paper:dtd", unpack_to=tmp_path, allow_size_mismatch=True)
    assert dataset.name == "textures of ours"
    assert len(dataset.splits["validation"]) == 6
    with pytest.raises(DatasetError, match="did you mean 'dtd'"):
        load_dataset("x", "paper:dtdd", unpack_to=tmp_path)


TORCHVISION = {
    "food101": ("Food101", {"train": "train", "test": "test"}),
    "stanford_cars": ("StanfordCars", {"train": "train", "test": "test"}),
    "fgvc_aircraft": ("FGVCAircraft", {"train": "train", "val": "validation", "test": "test"}),
    "dtd": ("DTD", {"train": "train", "val": "validation", "test": "test"}),
    "oxford_pets": ("OxfordIIITPet", {"trainval": "train", "test": "test"}),
}
"""Its reader, and its name of a split -> ours."""


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_reads_the_same_images_with_the_same_labels(tmp_path, name) -> None:
    from torchvision import datasets

    RELEASES[name](tmp_path)
    if name == "dtd":
        (tmp_path / "dtd").rename(tmp_path / "aside")
        (tmp_path / "dtd").mkdir()
        (tmp_path / "aside").rename(tmp_path / "dtd/dtd")
    ours = load(name, tmp_path)
    reader, splits = TORCHVISION[name]
    for theirs_name, split in splits.items():
        theirs = getattr(datasets, reader)(tmp_path, split=theirs_name)
        if name == "stanford_cars":
            theirs_files, labels = zip(*theirs._samples, strict=True)
        else:
            theirs_files = theirs._images if name == "oxford_pets" else theirs._image_files
            labels = theirs._labels
        shown = {Path(f): theirs.classes[k] for f, k in zip(theirs_files, labels, strict=True)}
        found = {}
        for part in (split, "validation") if "val" not in splits and split == "train" else (split,):
            rows = ours.splits[part]
            found |= dict(zip(rows.paths, (ours.class_names[k] for k in rows.labels), strict=True))
        if name == "oxford_pets":  # its class names are those of the files, prettier
            found = {f: " ".join(part.title() for part in label.split("_")) for f, label in found.items()}
        assert found == shown


# The order of nothing but names


@pytest.mark.parametrize("name", RELEASES)
def test_neither_lists_nor_directories_order_the_rows(tmp_path, name, monkeypatch) -> None:
    from stages.datasets import manifest_of

    RELEASES[name](tmp_path)
    before = load(name, tmp_path)
    if name not in ("cifar10", "cifar100"):  # there the place in the release is the id
        for path in tmp_path.rglob("*.txt"):
            text = path.read_text().splitlines()
            head = 1 if name == "birdsnap" else 0
            path.write_text("\n".join([*text[:head], *text[head:][::-1]]) + "\n")
    real = os.listdir, Path.iterdir
    monkeypatch.setattr(os, "listdir", lambda *a: sorted(real[0](*a), reverse=True))
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(real[1](self), reverse=True)))
    after = load(name, tmp_path)
    for split, rows in before.splits.items():
        assert after.splits[split].ids == rows.ids
        assert np.array_equal(after.splits[split].labels, rows.labels)
    assert manifest_of(after)["sha256"] == manifest_of(before)["sha256"]


def test_neither_locale_nor_hash_seed_changes_a_manifest(tmp_path) -> None:
    names = ("caltech101", "oxford_pets", "voc2007", "sun397")
    for name in names:
        RELEASES[name](tmp_path)
    script = f"""
import sys
from stages.datasets import load_dataset, manifest_of
for name in {names}:
    dataset = load_dataset(name, root={str(tmp_path)!r}, unpack_to={str(tmp_path)!r}, allow_size_mismatch=True)
    print(manifest_of(dataset)["sha256"])
"""
    said_by = set()
    for seed, locale in (("1", "C"), ("2", "C.UTF-8"), ("3", "tr_TR.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "LANG": locale}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        said_by.add(done.stdout)
    assert len(said_by) == 1
    assert len(said_by.pop().split()) == len(names)
