"""Several labels an image: one-hot columns of a csv, and VOC's annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.datasets import load_dataset
from stages.errors import DatasetAbsentError, DatasetError
from tests.stages.datasets.releases import jpeg, lines, put, voc_xml


def table(folder: Path, text: str, **options):
    for i in range(6):
        put(folder / f"{i}.png", f"any bytes {i}")
    put(folder / "split.csv", text)
    return load_dataset("ours", "csv:split.csv", base=folder, unpack_to=folder / "unpacked", **options)


ONE_HOT = "path,split,sea,group,sun,trees\n"


def test_one_hot_columns(tmp_path) -> None:
    rows = "0.png,train,1,g,0,-1\n1.png,train,0,g,1,0\n2.png,train,0,,0,1\n3.png,test,1,,1,0.0\n4.png,val,-1,,,1.0\n"
    dataset = table(tmp_path, ONE_HOT + rows)
    assert dataset.multi_label
    assert dataset.metric == "map_11_point"
    assert dataset.class_names == ("sea", "sun", "trees")
    assert dataset.splits["train"].labels.tolist() == [[1, 0, -1], [0, 1, 0], [0, 0, 1]]
    assert dataset.splits["test"].labels.tolist() == [[1, 1, 0]]
    assert dataset.splits["validation"].labels.tolist() == [[-1, 0, 1]]
    assert dataset.splits["train"].groups == ("g", "g", "")


def test_one_hot_and_joined_labels_are_the_same_thing(tmp_path) -> None:
    one = table(
        tmp_path, "path,split,a,b\n0.png,train,1,0\n1.png,train,0,0\n2.png,train,0,1\n3.png,test,1,1\n"
    )
    other = table(tmp_path, "path,split,label\n0.png,train,a\n1.png,train,\n2.png,train,b\n3.png,test,a|b\n")
    for split in one.splits:
        assert np.array_equal(one.splits[split].labels, other.splits[split].labels)


def test_one_hot_rows_of_at_most_one_label_are_multi_label_unless_all_have_one(tmp_path) -> None:
    sparse = "path,split,a,b\n0.png,train,1,0\n1.png,train,0,0\n2.png,train,0,1\n3.png,test,1,0\n"
    assert table(tmp_path, sparse).multi_label
    single = "path,split,a,b\n0.png,train,1,0\n2.png,train,0,1\n3.png,test,1,0\n"
    assert not table(tmp_path, single).multi_label
    assert table(tmp_path, single, multi_label=True).multi_label


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE_HOT + "0.png,train,2,,0,0\n", "split.csv:2: column 'sea' holds '2'"),
        ("path,lable,split,gruop\n0.png,rose,train,g\n", "column 'lable' holds 'rose'"),
        ("path,lable,split,gruop\n0.png,rose,train,g\n", "did you mean 'label'?"),
        ("path,lable,split\n0.png,rose,train\n", "no column 'label'"),
        ("path,split,label,a,b\n0.png,train,x,1,0\n", "unknown column 'a', 'b'"),
        ("path,split,a, a\n0.png,train,1,0\n", "column 'a' stands there more than once"),
        ("path,split,a|b,c\n0.png,train,1,0\n", "column 'a|b' cannot be a class"),
        ("path,split,?a,c\n0.png,train,1,0\n", "column '?a' cannot be a class"),
        ("path,split,,c\n0.png,train,1,0\n", "column '' cannot be a class"),
    ],
)
def test_mistakes_of_columns(tmp_path, text, said) -> None:
    with pytest.raises(DatasetError) as caught:
        table(tmp_path, text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


MARKS = {
    "train": {"b": {"cat": 1, "dog": 0}, "a": {"dog": 1}, "e": {}},
    "val": {"c": {"cat": 0}},
    "test": {"d": {"cat": 1, "dog": 1}},
}


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    for part, images in MARKS.items():
        lines(tmp_path / f"ImageSets/Main/{part}.txt", images)
        for name, marks in images.items():
            put(tmp_path / f"Annotations/{name}.xml", voc_xml(marks))
            put(tmp_path / f"JPEGImages/{name}.{'png' if name == 'b' else 'jpg'}", jpeg(part, name))
    return tmp_path


def load(folder: Path):
    return load_dataset("ours", f"voc:{folder}", unpack_to=folder / "unpacked")


def test_annotations(annotated) -> None:
    dataset = load(annotated)
    assert dataset.metric == "map_11_point"
    assert {name: dict(zip(s.ids, s.labels.tolist(), strict=True)) for name, s in dataset.splits.items()} == {
        "train": {"a.jpg": [0, 1], "b.png": [1, -1], "e.jpg": [0, 0]},
        "validation": {"c.jpg": [-1, 0]},
        "test": {"d.jpg": [1, 1]},
    }
    assert dataset.splits["train"].ids == ("a.jpg", "b.png", "e.jpg")


def test_an_easy_object_beside_a_difficult_one_counts(annotated) -> None:
    marks = {"dog": 0}
    text = voc_xml(marks).replace("</annotation>", voc_xml({"dog": 1})[len("<annotation>") :])
    put(annotated / "Annotations/a.xml", text)
    dataset = load(annotated)
    assert dataset.splits["train"].labels.tolist()[0] == [0, 1]


def test_trainval_stands_for_train_where_there_is_no_train(annotated) -> None:
    main = annotated / "ImageSets/Main"
    (main / "train.txt").rename(main / "trainval.txt")
    dataset = load(annotated)
    assert sorted(dataset.splits) == ["test", "train"]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><annotation><object><name>&b;</name></object></annotation>'
WRONG = {
    "cut short": ("Annotations/a.xml", "<annotation><object>", "not an annotation that can be read"),
    "a page": ("Annotations/a.xml", "<!DOCTYPE html><html></html>", "is a web page"),
    "entities": ("Annotations/a.xml", BOMB, "declares a document type or entities"),
    "no name": ("Annotations/a.xml", "<annotation><object/></annotation>", "an object's name is ''"),
    "a bar": ("Annotations/a.xml", voc_xml({"a|b": 1}), "an object's name is 'a|b'"),
    "no annotation": ("Annotations/a.xml", None, "a.xml: no such file"),
    "no image": ("JPEGImages/a.jpg", None, "1 of 5 images are not there: 'a.jpg'"),
    "no lists": ("ImageSets", None, "ImageSets/Main: no such folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_annotations_are_one_line(annotated, case) -> None:
    place, content, said = WRONG[case]
    if content is None:
        (annotated / place).rename(annotated / "away")
    else:
        put(annotated / place, content)
    with pytest.raises(DatasetError) as caught:
        load(annotated)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_folder(tmp_path) -> None:
    with pytest.raises(DatasetAbsentError, match="no such folder"):
        load(tmp_path / "nowhere")
