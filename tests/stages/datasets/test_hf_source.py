"""The Hugging Face library's data sets: saved folders, parquet files, its cache, and what is refused."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.datasets import PAPER_SETS, load_dataset
from stages.datasets.hub_source import parse_source
from stages.errors import DatasetAbsentError, DatasetError, MissingExtraError

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None,
    reason='datasets is not installed: pip install "penultimate[hub]"',
)


def load(folder: Path, location: str, **options: Any):
    return load_dataset("ours", f"hf:{location}", base=folder, unpack_to=folder / "unpacked", **options)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def table(count: int, start: int = 0, label: Any = None, values: Any = None):
    import datasets

    label = label or datasets.ClassLabel(names=["dog", "cat"])
    values = values or [i % 2 for i in range(count)]
    features = datasets.Features({"image": datasets.Image(), "label": label, "size": datasets.Value("int32")})
    images = [{"bytes": png(start + i), "path": None} for i in range(count)]
    columns = {"image": images, "label": values, "size": [4] * count}
    return datasets.Dataset.from_dict(columns, features=features)


def saved(path: Path, **splits: Any) -> Path:
    import datasets

    datasets.DatasetDict(splits).save_to_disk(path)
    return path


@needs_library
def test_a_saved_folder(tmp_path) -> None:
    saved(tmp_path / "set", train=table(6), test=table(4, 10), val=table(2, 20), extra=table(1, 30))
    dataset = load(tmp_path, "set")
    assert dataset.class_names == ("cat", "dog")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 6, "validation": 2, "test": 4,
    }  # fmt: skip
    train = dataset.splits["train"]
    assert train.ids[:2] == ("train/000000", "train/000001")
    assert train.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert [path.read_bytes() for path in train.paths] == [png(i) for i in range(6)]
    assert {path.suffix for path in train.paths} == {".png"}
    assert any("1 rows of 'extra' are not part of the set" in note for note in dataset.notes)


@needs_library
def test_what_was_read_once_needs_the_library_no_more(tmp_path, monkeypatch) -> None:
    saved(tmp_path / "set", train=table(6), test=table(4, 10))
    with pytest.raises(DatasetAbsentError, match="not read on this machine yet"):
        load(tmp_path, "set", fetch=False)
    first = load(tmp_path, "set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    again = load(tmp_path, "set", fetch=False)
    assert again.splits["train"].paths == first.splits["train"].paths


@needs_library
def test_parquet_files(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    (tmp_path / "set").mkdir()
    table(4).to_parquet(tmp_path / "set/train-00000-of-00001.parquet")
    table(2, 10).to_parquet(tmp_path / "set/test-00000-of-00001.parquet")
    dataset = load(tmp_path, "set")
    assert (len(dataset.splits["train"]), len(dataset.splits["test"])) == (4, 2)


@needs_library
def test_rows_to_train_on_only_are_split_and_it_is_told(tmp_path) -> None:
    table(20).save_to_disk(tmp_path / "set")
    dataset = load(tmp_path, "set", test_fraction=0.2, split_seed=3)
    assert (len(dataset.splits["train"]), len(dataset.splits["test"])) == (16, 4)
    assert any("4 of 20 images held out as test" in note and "seed 3" in note for note in dataset.notes)


@needs_library
def test_lists_of_labels_are_several_labels(tmp_path) -> None:
    import datasets

    label = datasets.List(datasets.ClassLabel(names=["sea", "sun"]))
    saved(
        tmp_path / "set",
        train=table(3, label=label, values=[[0, 1], [], [0]]),
        test=table(1, 10, label=label, values=[[1]]),
    )
    dataset = load(tmp_path, "set")
    assert dataset.multi_label
    assert dataset.splits["train"].labels.tolist() == [[1, 1], [0, 0], [1, 0]]


@needs_library
@pytest.mark.parametrize("name", ["sea|sun", "?sea"])
def test_names_that_would_be_taken_for_several_labels(tmp_path, name) -> None:
    import datasets

    one = datasets.ClassLabel(names=[name, "sun"])
    saved(tmp_path / "one", train=table(4, label=one), test=table(2, 10, one))
    assert set(load(tmp_path, "one").class_names) == {name, "sun"}
    several = datasets.List(one)
    saved(
        tmp_path / "several",
        train=table(2, label=several, values=[[0], [1]]),
        test=table(1, 10, several, [[1]]),
    )
    with pytest.raises(DatasetError, match=r"row 0: a label is '.*sea.*'; a name holds no |"):
        load(tmp_path, "several")


@needs_library
def test_a_table_cannot_name_any_file_of_the_machine(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    (tmp_path / "private.png").write_bytes(png(99))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/own.png").write_bytes(png(98))
    for own, refused in (("own.png", False), ("../private.png", True)):
        rows = table(2).with_format("arrow")[:].to_pylist()
        rows[0]["image"] = {"bytes": None, "path": str(tmp_path / "set" / own)}
        for split in ("train", "test"):
            datasets.Dataset.from_list(rows, features=table(2).features).to_parquet(
                tmp_path / f"set/{split}.parquet"
            )
        if refused:
            with pytest.raises(DatasetError, match="row 0 has no image"):
                load(tmp_path, "set")
        else:
            assert load(tmp_path, "set").splits["train"].paths[0].read_bytes() == png(98)


@needs_library
def test_numbers_and_names_as_labels(tmp_path) -> None:
    import datasets

    for name, kind, values, classes in (
        ("numbers", datasets.Value("int64"), [2, 10, 2, 10], ("02", "10")),
        ("names", datasets.Value("string"), ["rose", "oak", "oak", "rose"], ("oak", "rose")),
    ):
        saved(tmp_path / name, train=table(4, 0, kind, values), test=table(4, 10, kind, values))
        assert load(tmp_path, name).class_names == classes


@needs_library
def test_the_paper_s_names_bring_the_paper_s_metric_and_sizes(tmp_path) -> None:
    saved(tmp_path / "set", train=table(6), test=table(4, 10))
    where = {"base": tmp_path, "unpack_to": tmp_path / "unpacked"}
    with pytest.raises(DatasetError, match=r"4 test images \(expected 3669\)"):
        load_dataset("oxford_pets", "hf:set", **where)
    dataset = load_dataset("oxford_pets", "hf:set", allow_size_mismatch=True, **where)
    assert dataset.metric == "mean_per_class"


@needs_library
def test_a_copy_that_does_not_tell_the_official_validation_set_apart(tmp_path) -> None:
    """As copies of DTD: 20 training images in one split, of which half were for validation."""
    saved(tmp_path / "set", train=table(20), test=table(4, 30))
    where = {"base": tmp_path, "unpack_to": tmp_path / "unpacked", "allow_size_mismatch": True}
    dataset = load_dataset("dtd", "hf:set", **where)
    assert {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()} == {
        "train": [5, 5], "validation": [5, 5], "test": [2, 2],
    }  # fmt: skip
    assert any(
        note.startswith("the official validation set is not told apart here: 10 training images held out")
        for note in dataset.notes
    )


@needs_library
def test_columns_that_the_features_do_not_tell(tmp_path) -> None:
    import datasets

    both = {
        split: table(4, start).add_column("thumbnail", [None] * 4)
        for split, start in (("train", 0), ("test", 10))
    }
    both = {
        split: t.cast_column("thumbnail", datasets.Image()).cast_column(
            "size", datasets.ClassLabel(num_classes=5)
        )
        for split, t in both.items()
    }
    saved(tmp_path / "set", **both)
    with pytest.raises(DatasetError, match="which of 'image', 'thumbnail' is the image"):
        load(tmp_path, "set")
    with pytest.raises(DatasetError, match="which of 'label', 'size' is the label"):
        load(tmp_path, "set", image_column="image")
    with pytest.raises(DatasetError, match="has no column 'picture'; known: image, label, size, thumbnail"):
        load(tmp_path, "set", image_column="picture")
    with pytest.raises(DatasetError, match="column 'label' of train holds no images"):
        load(tmp_path, "set", image_column="label", label_column="label")
    with pytest.raises(DatasetError, match="row 0 has no image"):
        load(tmp_path, "set", image_column="thumbnail", label_column="label")
    assert load(tmp_path, "set", image_column="image", label_column="label").class_names == ("cat", "dog")


@needs_library
def test_rows_without_a_label(tmp_path) -> None:
    saved(tmp_path / "set", train=table(2), test=table(2, 10, values=[-1, 0]))
    with pytest.raises(DatasetError, match="row 0 has no label"):
        load(tmp_path, "set")
    import datasets

    numbers = datasets.Value("float32")
    saved(
        tmp_path / "nan", train=table(2, 0, numbers, [0.0, float("nan")]), test=table(1, 10, numbers, [0.0])
    )
    with pytest.raises(DatasetError, match="row 1 has no label"):
        load(tmp_path, "nan")


@needs_library
def test_a_damaged_folder(tmp_path) -> None:
    saved(tmp_path / "set", train=table(2), test=table(2, 10))
    (tmp_path / "set/train/data-00000-of-00001.arrow").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"hf:.*set: the library datasets cannot read it"):
        load(tmp_path, "set")


@needs_library
def test_the_library_s_cache_and_a_hub_out_of_reach(tmp_path) -> None:
    """In a process of its own: the library reads its surroundings when it is loaded."""
    files = tmp_path / "files"
    files.mkdir()
    table(4).to_parquet(files / "train-00000-of-00001.parquet")
    table(2, 10).to_parquet(files / "test-00000-of-00001.parquet")
    script = f"""
import pathlib, shutil
import datasets
from stages.datasets import PAPER_SETS, load_dataset
from stages.errors import DatasetAbsentError
home = pathlib.Path({str(tmp_path)!r})
def load():
    return load_dataset("ours", "hf:somebody/flags@main", base=home, unpack_to=home / "unpacked")
try:
    load()
    raise SystemExit("read from nowhere")
except DatasetAbsentError as error:
    assert "the hub is out of reach" in str(error) and "save_to_disk" in str(error), error
datasets.load_dataset(str(home / "files"))
(read,) = (path.parent for path in (home / "hf/datasets").rglob("0.0.0"))
place = home / "hf/datasets/somebody___flags/default"
place.mkdir(parents=True)
shutil.move(read / "0.0.0", place / "0.0.0")
for path in place.rglob("files-*.arrow"):
    path.rename(path.with_name(path.name.replace("files-", "flags-")))
print(len(load().splits["train"]))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "4"


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "datasets" else real(name, *a)
    )
    with pytest.raises(MissingExtraError, match=r'pip install "penultimate\[hub\]"'):
        load(tmp_path, "somebody/flags")


def test_streaming_is_refused_with_a_reason(tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"streaming .* are refused: features are cached by the hash"):
        load(tmp_path, "somebody/flags?streaming=true")


def test_copies_of_the_paper_s_sets_are_frozen(tmp_path) -> None:
    hubs = {name: facts.hub for name, facts in PAPER_SETS.items() if facts.hub}
    assert set(PAPER_SETS) - set(hubs) == {"voc2007"}  # copies of which say nothing of difficult objects
    for name, hub in hubs.items():
        source = parse_source(hub.source.removeprefix("hf:"), tmp_path)
        assert source.frozen, name
        assert (source.label_column, source.splits) == (hub.label_column, hub.splits)
    assert not parse_source("somebody/flags@main", tmp_path).frozen
    assert not parse_source("somebody/flags", tmp_path).frozen


def test_names_are_taken_apart(tmp_path) -> None:
    source = parse_source("somebody/flags:small@v1.0", tmp_path)
    assert (source.name, source.configuration, source.revision) == ("somebody/flags", "small", "v1.0")
    known = parse_source("uoft-cs/cifar100@main", tmp_path)
    assert known.label_column == "fine_label"
    assert parse_source("ethz/food101", tmp_path).splits == {"validation": "test"}
    with pytest.raises(DatasetAbsentError, match="no folder of that name"):
        parse_source("../nowhere/at/all", tmp_path)
