"""Webdataset shards: samples, labels, splits, and what is wrong with them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from stages.datasets import load_dataset, wds_source
from stages.errors import DatasetAbsentError, DatasetError
from tests.stages.datasets.releases import jpeg

Files = list[tuple[str, bytes]]


def shard(path: Path, files: Files, mode: str = "w") -> Path:
    """Write a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(part: str, labels: list[str], kind: str = "cls", start: int = 0) -> Files:
    """Images with a label file each."""
    files: Files = []
    for number, label in enumerate(labels, start):
        files.append((f"{number:06d}.jpg", jpeg(part, label, number)))
        files.append((f"{number:06d}.{kind}", label.encode()))
    return files


def load(folder: Path, pattern: str = "*.tar", **options):
    return load_dataset("ours", f"wds:{pattern}", base=folder, unpack_to=folder / "unpacked", **options)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    shard(tmp_path / "set-train-000.tar", samples("train", ["9", "10", "9"]))
    shard(tmp_path / "set-train-001.tar", samples("train", ["10", "9"], start=3))
    shard(tmp_path / "set-test-000.tar", samples("test", ["10", "9"]))
    return tmp_path


def test_samples_keep_their_order_and_images_their_bytes(shards) -> None:
    dataset = load(shards)
    assert dataset.class_names == ("09", "10")
    train = dataset.splits["train"]
    assert train.ids == (
        "set-train-000/000000", "set-train-000/000001", "set-train-000/000002", "set-train-001/000003",
        "set-train-001/000004",
    )  # fmt: skip
    assert train.labels.tolist() == [0, 1, 0, 1, 0]
    assert [path.read_bytes() for path in train.paths] == [
        jpeg("train", label, i) for i, label in enumerate(["9", "10", "9", "10", "9"])
    ]
    assert len(dataset.splits["test"]) == 2


def test_shards_are_read_once_and_again_when_they_change(shards, monkeypatch) -> None:
    first = load(shards)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *a, **k: pytest.fail("read again"))
        assert load(shards).splits["train"].paths == first.splits["train"].paths
    shard(shards / "set-test-000.tar", samples("test", ["9", "10", "10"]))
    assert len(load(shards).splits["test"]) == 3
    first.splits["train"].paths[0].unlink()
    assert load(shards).splits["train"].paths[0].is_file()


@pytest.mark.parametrize(
    "pattern",
    ["{train,test}/{000..001}.tar", "t*/*.tar", "*/00[01].tar", "train/*.tar", "{train,val,test}/*.tar"],
)
def test_patterns_and_folders_named_as_splits(tmp_path, pattern) -> None:
    for part in ("train", "test", "val"):
        shard(tmp_path / part / "000.tar", samples(part, ["cat", "dog", "cat"]))
        shard(tmp_path / part / "001.tar", samples(part, ["dog"], start=9))
    if pattern == "train/*.tar":
        with pytest.raises(DatasetError, match="split 'test' has no rows"):
            load(tmp_path, pattern)
        return
    dataset = load(tmp_path, pattern)
    assert {name: len(split) for name, split in dataset.splits.items() if name != "validation"} == {
        "train": 4, "test": 4,
    }  # fmt: skip
    assert ("validation" in dataset.splits) == ("val" in pattern or pattern.startswith("*/"))
    assert dataset.splits["train"].ids[0] == "train/000/000000"


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_packed_shards(shards, mode) -> None:
    shard(shards / "set-train-000.tar", samples("train", ["9", "10", "9"]), mode)
    assert len(load(shards).splits["train"]) == 5


JSON = {
    "number": ("3", "3"),
    "name": ('"cat"', "cat"),
    "list": ('["cat", "dog"]', "cat|dog"),
    "object": ('{"label": "cat", "width": 8}', "cat"),
    "numbers": ('{"label": [0, 2]}', "0|2"),
}


@pytest.mark.parametrize("case", JSON)
def test_labels_in_json(tmp_path, case) -> None:
    text, label = JSON[case]
    other = json.dumps("zebra") if not label[0].isdigit() else "1"
    files = [("a/0.1.png", jpeg("train", "x", 1)), ("a/0.json", b"")]
    files = [("a/0.png", jpeg("train", "x", 1)), ("a/0.json", text.encode()), ("a/0.cls.bak", b"?")]
    files += [("b/0.png", jpeg("train", "y", 2)), ("b/0.json", other.encode()), ("._0.png", b"")]
    for part in ("train", "test"):
        shard(tmp_path / f"{part}.tar", files)
    dataset = load(tmp_path)
    wanted = {*label.split("|"), json.loads(other) if other[0] == '"' else other}
    assert set(dataset.class_names) == wanted
    assert dataset.multi_label == ("|" in label)
    assert dataset.splits["train"].ids == ("train/a/0", "train/b/0")


def test_text_labels_may_be_several(tmp_path) -> None:
    for part in ("train", "test"):
        shard(tmp_path / f"{part}.tar", samples(part, ["sea|sun", "sun", "?sea"], "txt"))
    dataset = load(tmp_path)
    assert dataset.splits["train"].labels.tolist() == [[1, 1], [0, 1], [-1, 0]]
    assert dataset.splits["train"].labels.dtype == np.int8


def wrong(tmp_path: Path, files: Files, said: str) -> None:
    shard(tmp_path / "test.tar", samples("test", ["a", "b"]))
    shard(tmp_path / "train.tar", files)
    with pytest.raises(DatasetError) as caught:
        load(tmp_path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("1.jpg", b"x")], "train.tar: sample '1' has no label"),
        ([("1.cls", b"0")], "train.tar: sample '1' has a label and no image"),
        ([("1.jpg", b"x"), ("1.png", b"x")], "sample '1' has two images"),
        ([("1.jpg", b"x"), ("1.json", b"{")], "its json cannot be read"),
        ([("1.jpg", b"x"), ("1.json", b'{"caption": "a cat"}')], "its json holds no number, name"),
        ([("1.jpg", b"x"), ("1.cls", b"\xff")], "its cls cannot be read"),
        ([("1.jpg", b"x"), ("1.json", b"[" * 100_000)], "its json cannot be read"),
        ([("1.jpg", b"x"), ("1.json", b'["a|b"]')], "a label is 'a|b'"),
        ([("1.jpg", b"x"), ("1.cls", b"0"), ("1.cls", b"1")], "sample '1' has two labels of the kind cls"),
        ([("a\nb.jpg", b"x")], r"'a\nb.jpg' is no name to be written down"),
        ([("\udcff.jpg", b"x")], r"'\udcff.jpg' is no name to be written down"),
    ],
)
def test_samples_that_are_none(tmp_path, files, said) -> None:
    wrong(tmp_path, files, said)


def test_damaged_shards(shards) -> None:
    path = shards / "set-train-000.tar"
    whole = path.read_bytes()
    for content in (b"<html>404</html>", whole[: len(whole) // 3], b"", whole[:700]):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"set-train-000.tar: not a tar file that can be read"):
            load(shards)


def test_an_image_that_claims_too_much_is_not_read(shards, monkeypatch) -> None:
    """A few packed bytes may stand for any number; and a header may promise what is not there."""
    monkeypatch.setattr(wds_source, "LARGEST_IMAGE", 1 << 20)
    files = [("big.jpg", bytes(3 << 20)), ("big.cls", b"9")]
    packed = shard(shards / "set-train-002.tar.gz", files, "w:gz")
    assert packed.stat().st_size < 10_000
    with pytest.raises(DatasetError, match=r"sample 'big': an image of 3 MB; 1 MB are the most"):
        load(shards, "*.tar*")
    member = tarfile.TarInfo("big.jpg")
    member.size = 1 << 40
    packed.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DatasetError, match=r"an image of 1048576 MB"):
        load(shards, "*.tar*")


def test_links_in_shards_lead_nowhere(shards) -> None:
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    with tarfile.open(shards / "set-train-002.tar", "w") as archive:
        archive.addfile(link)
    assert "set-train-002/link" not in load(shards).splits["train"].ids


def test_every_shard_that_is_named_must_be_there(shards) -> None:
    with pytest.raises(
        DatasetError, match=r"2 of 5 shards are not there: 'set-test-001.tar', 'set-train-002.tar'"
    ):
        load(shards, "set-{train-{000..002},test-{000..001},test-000}.tar")
    assert len(load(shards, "set-{train-{000..001},test-000}.tar").splits["train"]) == 5
    with pytest.raises(DatasetError, match="more than 100000 shards"):
        load(shards, "set-{000000..999999999}.tar")


def test_shards_must_name_their_split(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    shard(tmp_path / "data/000.tar", samples("train", ["a"]))
    with pytest.raises(DatasetError, match="names no split"):
        load(tmp_path, "data/*.tar")
    shard(tmp_path / "data/train-test-000.tar", samples("train", ["a"]))
    with pytest.raises(DatasetError, match="several splits"):
        load(tmp_path, "data/train*.tar")


def test_no_shards(tmp_path) -> None:
    with pytest.raises(DatasetAbsentError, match="no shard matches"):
        load(tmp_path, "train-{000..012}.tar")


def test_no_member_is_written_where_its_name_says(shards) -> None:
    files = [("../../evil.jpg", jpeg("train", "9")), ("../../evil.cls", b"9")]
    shard(shards / "set-train-002.tar", [*files, ("/abs.jpg", jpeg("train", "10")), ("/abs.cls", b"10")])
    dataset = load(shards)
    assert all((shards / "unpacked") in path.parents for path in dataset.splits["train"].paths)
    assert not list(shards.parent.glob("evil*"))
