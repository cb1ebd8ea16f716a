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
        ({"training/cat": 2, "testing/cat": 2}, "'testing', 'training' look like splits, not like classes"),
        ({"train/cat": 2, "train/dog": 2, "eval/cat": 1}, "look like splits"),
        ({"train_set/cat": 2, "test_set/dog": 2}, "look like splits"),
        ({"pets/train/cat": 2, "pets/test/cat": 1}, r"lie one level down; give .*/pets"),
        (
            {"train/cat": 2, "Train/dog": 1, "test/cat": 1},
            "names of one split; merge the folders into train/",
        ),
    ],
)
def test_mistakes(tmp_path, layout, said):
    fill(tmp_path, layout)
    with pytest.raises(DatasetError, match=said):
        load(tmp_path)


def test_names_of_splits_may_be_capitals(tmp_path):
    fill(tmp_path, {"Train/cat": 2, "Train/dog": 3, "VAL/cat": 1, "TEST/dog": 1})
    sizes = {name: len(split) for name, split in load(tmp_path).splits.items()}
    assert sizes == {"train": 5, "validation": 1, "test": 1}


def test_a_folder_s_name_is_one_class_whatever_it_holds(tmp_path):
    fill(tmp_path, {"a|b": 5, "?c": 5})
    dataset = load(tmp_path)
    assert (dataset.class_names, dataset.metric) == (("?c", "a|b"), "top_1")


def test_empty_classes_and_images_without_a_class_are_told(tmp_path):
    fill(tmp_path, {"train/cat": 2, "train/dog": 2, "train/bird": 0, "test/cat": 1, ".git/cat": 1})
    fill(tmp_path, {"train/cat/.thumbs": 1, "__MACOSX/train": 1})
    for place in ("lonely.jpg", "train/lonely.PNG"):
        (tmp_path / place).write_bytes(b"x")
    dataset = load(tmp_path)
    assert len(dataset.splits["train"]) == 4
    assert "1 class folders hold no images: 'train/bird'" in dataset.notes
    assert any("2 images lie in no class folder" in note and "'lonely.jpg'" in note for note in dataset.notes)


def test_files_of_other_formats_alone_are_named(tmp_path):
    fill(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 1})
    for path in (tmp_path / "train").rglob("*.JPG"):
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(DatasetError, match=r"train: no file has the suffix of an image .*'train/cat/0.heic'"):
        load(tmp_path)


def test_a_link_that_leads_nowhere_is_an_image_that_lacks(tmp_path):
    """As git-annex leaves what it has not fetched."""
    fill(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 1})
    (tmp_path / "train/dog/9.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "train/cat/loop").symlink_to(tmp_path)
    with pytest.raises(
        DatasetError, match=r"1 of 6 images are not there: 'train/dog/9.jpg'; links that lead"
    ):
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
