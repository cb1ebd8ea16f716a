"""Split manifests: what they hold, when they are equal, and the first difference where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.datasets import load_dataset, manifest_of, write_manifest
from stages.datasets.drawn import drawn, hold_validation_out
from stages.datasets.manifest import FILE, label_texts
from stages.datasets.rows import Row
from stages.errors import DatasetError

TABLE = (
    "path,label,split,group\n0.png,b,train,g\n3.png,a,train,\n1.png,a,test,\n2.png,b,test,\n4.png,a,val,\n"
)


def load(folder: Path, text: str = TABLE, **options):
    folder.mkdir(exist_ok=True)
    for i in range(6):
        (folder / f"{i}.png").write_bytes(b"any bytes")
    (folder / "split.csv").write_text(text)
    return load_dataset("ours", "csv:split.csv", base=folder, unpack_to=folder / "unpacked", **options)


def test_a_manifest_holds_ids_and_labels_in_order(tmp_path) -> None:
    manifest = manifest_of(load(tmp_path))
    assert manifest["class_names"] == ["a", "b"]
    assert manifest["splits"]["train"] == {
        "ids": ["0.png", "3.png"],
        "labels": ["b", "a"],
        "groups": ["g", ""],
    }
    assert manifest["splits"]["validation"] == {"ids": ["4.png"], "labels": ["a"]}
    assert len(manifest["sha256"]) == 64


def test_several_labels_are_written_as_a_csv_has_them(tmp_path) -> None:
    text = "path,label,split\n0.png,sea|sun,train\n1.png,,train\n3.png,sea,train\n2.png,?sea|sun,test\n"
    dataset = load(tmp_path, text)
    assert label_texts(dataset.splits["train"].labels, dataset.class_names) == ["sea|sun", "", "sea"]
    assert label_texts(dataset.splits["test"].labels, dataset.class_names) == ["?sea|sun"]


def test_the_hash_depends_on_what_is_said_alone(tmp_path) -> None:
    first = manifest_of(load(tmp_path))
    other = manifest_of(load(tmp_path / "elsewhere"))
    assert first["sha256"] == other["sha256"]
    changed = manifest_of(load(tmp_path, TABLE.replace("4.png,a", "4.png,b")))
    assert first["sha256"] != changed["sha256"]


@pytest.mark.parametrize("where", ["named", "beside"])
def test_data_that_equal_their_manifest_say_so(tmp_path, where) -> None:
    dataset = load(tmp_path)
    path = tmp_path / ("split.manifest.json" if where == "beside" else "any.json")
    digest = write_manifest(dataset, path)
    again = load(tmp_path, manifest=None if where == "beside" else "any.json")
    assert f"equals the manifest {path.name}, sha256 {digest}" in again.notes


def test_a_manifest_beside_a_folder_of_images(tmp_path) -> None:
    for name in ("train/cat/0.jpg", "train/dog/0.jpg", "test/cat/0.jpg", "test/dog/0.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(name.encode())
    dataset = load_dataset("ours", "folder:set", base=tmp_path, unpack_to=tmp_path)
    write_manifest(dataset, tmp_path / "set" / FILE)
    (tmp_path / "set/train/dog/1.jpg").write_bytes(b"new")
    with pytest.raises(
        DatasetError, match=r"train, row 3: the id is 'nothing' there, 'train/dog/1\.jpg' here"
    ):
        load_dataset("ours", "folder:set", base=tmp_path, unpack_to=tmp_path)
    load_dataset("ours", "folder:set", base=tmp_path, unpack_to=tmp_path, manifest_beside=False)


DIFFERENCES = {
    "label": (
        TABLE.replace("1.png,a,test", "1.png,b,test"),
        "test, row 1: the label of '1.png' is 'a' there, 'b' here",
    ),
    "order": (
        TABLE.replace("0.png,b,train,g\n3.png,a,train,\n", "3.png,a,train,\n0.png,b,train,g\n"),
        "train, row 1: the id is '0.png' there, '3.png' here",
    ),
    "more": (TABLE + "5.png,a,test,\n", "test, row 3: the id is 'nothing' there, '5.png' here"),
    "less": (TABLE.replace("2.png,b,test,\n", ""), "test, row 2: the id is '2.png' there, 'nothing' here"),
    "group": (TABLE.replace("train,g", "train,h"), "train, row 1: the group of '0.png' is 'g' there, 'h' here"),
    "split": (
        TABLE.replace("val", "train"),
        "its splits are ['test', 'train', 'validation'], found ['test', 'train']",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENCES)
def test_the_first_difference_is_named(tmp_path, case) -> None:
    text, said = DIFFERENCES[case]
    write_manifest(load(tmp_path), tmp_path / "frozen.json")
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, text, manifest="frozen.json")
    assert said in str(caught.value)
    assert "frozen.json: ours is not what the manifest says" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def _altered(content: dict) -> dict:
    content["splits"]["train"]["labels"][0] = "a"
    return content


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (None, "the manifest cannot be read"),
        (lambda _: "{", "not JSON"),
        (lambda _: "[]", "not a 'penultimate split manifest 1'"),
        (lambda text: json.dumps(_altered(json.loads(text))), "the manifest was altered"),
    ],
)
def test_files_that_are_no_manifest(tmp_path, alter, said) -> None:
    path = tmp_path / "frozen.json"
    write_manifest(load(tmp_path), path)
    if alter:
        path.write_text(alter(path.read_text()))
    else:
        path.unlink()
    with pytest.raises(DatasetError, match=said) as caught:
        load(tmp_path, manifest="frozen.json")
    assert len(str(caught.value).splitlines()) == 1


# Seeded draws

names = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=30)


@given(names, st.integers(0, 5), st.randoms())
def test_a_draw_knows_no_order_and_one_id_more_moves_no_other(ids, seed, random) -> None:
    shuffled = random.sample(ids, len(ids))
    order = drawn(ids, seed)
    assert drawn(shuffled, seed) == order
    if ids:
        without = [id_ for id_ in order if id_ != ids[0]]
        assert drawn(ids[1:], seed) == without


@given(
    st.lists(st.sampled_from("abcd"), min_size=8, max_size=80),
    st.integers(1, 9),
    st.integers(0, 3),
    st.randoms(),
)
def test_validation_sets_are_stratified_and_of_the_size_asked_for(labels, tenths, seed, random) -> None:
    from fractions import Fraction

    share = Fraction(tenths, 10)
    rows = [
        Row(f"{i:03d}", Path(), label, "test" if i % 4 == 0 else "train") for i, label in enumerate(labels)
    ]
    held = hold_validation_out(rows, share, seed)
    assert [row.split == "test" for row in held] == [row.split == "test" for row in rows]
    short = 0
    for label in set(labels):
        before = sum(row.label == label and row.split == "train" for row in rows)
        after = sum(row.label == label and row.split == "validation" for row in held)
        assert abs(after - before * share) < 1 or after == before - 1
        assert after < before or before == 0
        short += max(0, int(before * share) + 1 - after)
    total = sum(row.split == "train" for row in rows)
    drawn_ids = {row.id for row in held if row.split == "validation"}
    assert len(drawn_ids) <= int(total * share) <= len(drawn_ids) + short
    again = hold_validation_out(random.sample(rows, len(rows)), share, seed)
    assert {row.id for row in again if row.split == "validation"} == drawn_ids
