"""Split csv files: rows in order, and every mistake in one line."""

from pathlib import Path

import numpy as np
import pytest

from stages.datasets import load_dataset
from stages.errors import DatasetAbsentError, DatasetError

HEADER = "path,label,split\n"


@pytest.fixture
def images(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(b"any bytes: no image is opened")
    return tmp_path


def load(folder: Path, text: str | bytes, **options):
    (folder / "split.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_dataset("ours", "csv:split.csv", base=folder, unpack_to=folder / "unpacked", **options)


GOOD = HEADER + "0.png,b,train\n3.png,a,train\n1.png,a,test\n2.png,b,test\n4.png,a,val\n"


def test_rows_keep_the_order_of_the_file_and_labels_index_sorted_names(images):
    dataset = load(images, GOOD)
    assert dataset.class_names == ("a", "b")
    assert dataset.metric == "top_1"
    assert {name: split.ids for name, split in dataset.splits.items()} == {
        "train": ("0.png", "3.png"),
        "validation": ("4.png",),
        "test": ("1.png", "2.png"),
    }
    assert dataset.splits["train"].labels.tolist() == [1, 0]
    assert dataset.splits["train"].paths[0] == images / "0.png"


def test_several_labels_and_ignored_ones(images):
    dataset = load(
        images, HEADER + "0.png,sea|sun,train\n1.png,,train\n2.png,?sea|sun,test\n3.png,sea,train\n"
    )
    assert dataset.multi_label
    assert dataset.metric == "map_11_point"
    assert dataset.splits["train"].labels.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert dataset.splits["test"].labels.tolist() == [[-1, 1]]
    assert dataset.splits["test"].labels.dtype == np.int8


def test_groups_come_along(images):
    dataset = load(images, "path,label,split,group\n0.png,a,train,p1\n1.png,b,train,\n2.png,a,test,p2\n")
    assert dataset.splits["train"].groups == ("p1", "")


def test_blanks_round_columns_and_names_are_nothing(images):
    dataset = load(
        images, "path , label, split\n0.png, a |? b,train\n1.png,b,train\n2.png,a,train\n3.png,a|b,test\n"
    )
    assert dataset.class_names == ("a", "b")
    assert dataset.splits["train"].labels.tolist() == [[1, -1], [0, 1], [1, 0]]


def test_a_byte_order_mark_and_quoted_commas_are_fine(images):
    (images / "a,b.png").write_bytes(b"x")
    text = "\ufeff" + HEADER + '"a,b.png",a,train\n1.png,b,train\n2.png,a,test\n'
    assert load(images, text).splits["train"].ids == ("a,b.png", "1.png")


MISTAKES = {
    "empty": ("", "the csv is empty"),
    "header only": (HEADER, "has a header and no rows"),
    "not UTF-8": (b"path,label,split\n\xff.png,a,train\n", "not UTF-8 at byte 17"),
    "no column": ("path,label\n0.png,a\n", "no column 'split'"),
    "typo in a column": ("path,label,split,gruop\n0.png,a,train,x\n", "did you mean 'group'?"),
    "typo in a split": (HEADER + "0.png,a,trian\n", "did you mean 'train'?"),
    "too many cells": (HEADER + "0.png,a,train,x\n", "a cell too many"),
    "too few cells": (HEADER + "0.png,a\n", "a cell too many or too few"),
    "duplicate ids": (GOOD + "0.png,a,test\n", "1 ids are listed more than once: '0.png'"),
    "missing image": (GOOD + "gone.png,a,test\n", "1 of 6 images are not there: 'gone.png'"),
    "no test rows": (HEADER + "0.png,a,train\n1.png,b,train\n", "split 'test' has no rows"),
    "no train rows": (HEADER + "0.png,a,test\n1.png,b,test\n", "split 'train' has no rows"),
    "one class": (HEADER + "0.png,a,train\n1.png,a,test\n", "one class only ('a')"),
    "class only in test": (GOOD + "5.png,zebra,test\n", "class 'zebra' is in test and has no image in train"),
    "label typo": (HEADER + "0.png,rose,train\n1.png,oak,train\n2.png,roze,test\n", "a typo of 'rose'?"),
    "no label": (GOOD + "5.png,,test\n", "1 images have no label: '5.png'"),
    "a column twice": (
        "path,label,split,label\n0.png,a,train,b\n",
        "column 'label' stands there more than once",
    ),
    "a quotation mark left open": (HEADER + '"0.png,a,train\n1.png,b,test\n', "opened and not closed?"),
    "one file in two spellings": (GOOD + "./0.png,b,test\n", "'0.png' and './0.png' are one file"),
    "a label that contradicts itself": (
        HEADER + "0.png,a|?a,train\n1.png,b,train\n2.png,a,train\n3.png,a|b,test\n",
        "label 'a|?a' of '0.png': 'a' is both there and ignored",
    ),
    "a mark without a name": (
        HEADER + "0.png,a|?,train\n1.png,b,train\n2.png,a|b,test\n",
        "label 'a|?' of '0.png': a ? belongs before a name",
    ),
    "two marks": (
        HEADER + "0.png,a|??b,train\n1.png,b,train\n2.png,a|b,test\n",
        "label 'a|??b' of '0.png'",
    ),
    "two ways to write an accent": (
        HEADER + "0.png,caf\u00e9,train\n1.png,cafe\u0301,train\n2.png,caf\u00e9,test\n",
        r"2 ways that look alike ('cafe\u0301', 'caf\xe9')",
    ),
    "label everywhere": (HEADER + "0.png,a|b,train\n1.png,a,train\n2.png,b,test\n", "label 'a' is on every"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_is_one_line_that_names_the_file(images, text, said):
    with pytest.raises(DatasetError) as caught:
        load(images, text)
    assert said in str(caught.value)
    assert all("split.csv" in line for line in str(caught.value).splitlines())


def test_all_mistakes_are_listed_at_once(images):
    with pytest.raises(DatasetError) as caught:
        load(images, HEADER + "0.png,a,train\n0.png,a,train\n1.png,b,test\n")
    assert len(str(caught.value).splitlines()) == 3


def test_a_set_called_as_one_of_the_paper_s_is_told_of_its_metric(images):
    (images / "split.csv").write_text(GOOD)
    for name, options, told in (
        ("oxford_pets", {}, True),
        ("oxford_pets", {"metric": "top_1"}, False),
        ("dtd", {}, False),
        ("ours", {}, False),
    ):
        dataset = load_dataset(name, "csv:split.csv", base=images, unpack_to=images, **options)
        assert dataset.metric == "top_1"
        assert any("whose metric is mean_per_class" in note for note in dataset.notes) == told


def test_a_metric_must_fit_the_labels(images):
    with pytest.raises(DatasetError, match="metric 'map_11_point' does not fit one label an image"):
        load(images, GOOD, metric="map_11_point", multi_label=False)


def test_absent_files_are_told_apart_from_wrong_ones(images):
    with pytest.raises(DatasetAbsentError, match="no such csv"):
        load_dataset("ours", "csv:nowhere.csv", base=images, unpack_to=images)
    with pytest.raises(
        DatasetAbsentError,
        match=r"none of the 2 images is there: .*\(looked for .*x\.png\); paths are relative",
    ):
        load(images, HEADER + "x.png,a,train\ny.png,b,test\n")


@pytest.mark.parametrize(
    ("source", "said"), [("cvs:split.csv", "did you mean 'csv'?"), (None, "is not a packaged set")]
)
def test_unknown_sources_are_refused(tmp_path, source, said):
    with pytest.raises(DatasetError, match=said.replace("?", r"\?")):
        load_dataset("ours", source, base=tmp_path, unpack_to=tmp_path)


def test_groups_that_the_splits_tear_are_told(images):
    text = "path,label,split,group\n0.png,a,train,p1\n1.png,b,train,p2\n2.png,a,test,p1\n"
    assert any(
        "1 groups have rows in several" in note and "'p1'" in note for note in load(images, text).notes
    )
