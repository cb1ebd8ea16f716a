"""Folders of class folders, with and without a split of their own."""

import os
import sys
from pathlib import Path

import pytest

from stages.datasets import load_dataset
from stages.errors import DatasetAbsentError, DatasetError


def fill(root, layout):
    for name, count in layout.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.JPG").write_bytes(f"{name}{i}".encode())


def load(root, **options):
    return load_dataset("ours", f"folder:{root}", unpack_to=root, **options)


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_split_folders(tmp_path, validation):
    fill(tmp_path, {"train/cat": 2, "train/dog": 3, f"{validation}/cat": 1, "test/dog": 1})
    dataset = load(tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 5, "validation": 1, "test": 1,
    }  # fmt: skip
    assert dataset.splits["train"].ids[0] == "train/cat/0.JPG"


def test_class_folders_get_a_seeded_stratified_split_that_is_told(tmp_path):
    fill(tmp_path, {"cat": 20, "dog": 10})
    dataset = load(tmp_path, test_fraction=0.2, split_seed=3)
    test = dataset.splits["test"]
    assert [(test.labels == k).sum() for k in (0, 1)] == [4, 2]
    assert "6 of 30 images held out as test, stratified by class, fraction 0.2, seed 3" in dataset.notes[0]
    assert load(tmp_path, split_seed=3).splits["test"].ids == test.ids
    assert load(tmp_path, split_seed=4).splits["test"].ids != test.ids


def test_identical_images_stay_on_one_side(tmp_path):
    fill(tmp_path, {"cat": 10, "dog": 10})
    for i in range(8):
        (tmp_path / "cat" / f"copy{i}.jpg").write_bytes(b"the same")
    for seed in range(5):
        test = load(tmp_path, split_seed=seed).splits["test"].ids
        assert sum("copy" in id_ for id_ in test) in (0, 8)


def test_other_files_are_left_out_and_told(tmp_path):
    fill(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "cat" / ".hidden.jpg").write_bytes(b"")
    assert any("'cat/Thumbs.db'" in note for note in load(tmp_path).notes)


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({}, "no images in class folders"),
        ({"train/cat": 2, "train/dog": 1, "cat": 1}, "keep either split folders or class folders"),
        ({"train/cat": 1, "train/dog": 1, "val/cat": 1, "valid/cat": 1, "test/cat": 1}, "names of one split"),
        ({"train/cat": 2, "train/dog": 2}, "split 'test' has no rows"),
        ({"cat": 4}, "one class only"),
    ],
)
def test_mistakes(tmp_path, layout, said):
    fill(tmp_path, layout)
    with pytest.raises(DatasetError, match=said):
        load(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(DatasetAbsentError, match="no such folder"):
        load(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names that are not UTF-8")
def test_names_that_are_not_utf8_are_refused_by_name(tmp_path):
    fill(tmp_path, {"cat": 3, "dog": 3})
    Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/\xff.jpg")).write_bytes(b"x")
    with pytest.raises(DatasetError, match="the name is not UTF-8"):
        load(tmp_path)
