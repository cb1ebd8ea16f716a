from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import CacheKey, DamagedEntryError, InvalidInputError, KeyMissingError, NewerFormatError, Store
from cache.layout import MAGIC, pack, unpack
from tests.cache.conftest import Make, batch, key_of, metadata


def flip(path: Path, position: int, mask: int = 1) -> None:
    """Change one byte of a published file behind everybody's back."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ mask]))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_was_written_is_read(store: Store, make: Make, multi_label: bool, dtype: Any) -> None:
    make(rows=20, multi_label=multi_label, dtype=dtype)
    entry = store.read(key_of())
    expected = batch(0, 20, 5, 3, multi_label, dtype)
    np.testing.assert_array_equal(entry.features, expected["features"])
    np.testing.assert_array_equal(entry.labels, expected["labels"])
    assert entry.features.dtype == dtype
    assert entry.labels.dtype == expected["labels"].dtype
    assert entry.ids == tuple(expected["ids"])
    assert {name: list(column) for name, column in entry.row_metadata.items()} == expected["row_metadata"]
    assert entry.key == key_of()
    assert entry.metadata["class_names"] == ("class 0", "class 1", "class 2")
    assert entry.metadata["provenance"] == {"host": "here", "seconds": 1.5}
    assert isinstance(entry.features, np.memmap)
    assert not entry.features.flags.writeable
    assert not entry.labels.flags.writeable


def test_plain_h5py_reads_the_same(make: Make) -> None:
    entry = make(rows=20)
    with h5py.File(entry.path) as file:
        assert set(file) == {"features", "labels", "ids"}
        np.testing.assert_array_equal(file["features"][:], entry.features)
        np.testing.assert_array_equal(file["labels"][:], entry.labels)
        assert tuple(file["ids"].asstr()[:]) == entry.ids
        assert file["features"].id.get_offset() == entry.index.arrays["features"].offset


def test_the_same_rows_give_the_same_bytes(make: Make, tmp_path: Path) -> None:
    first = make(anew=True)
    second = make(into=Store(tmp_path / "other", private=tmp_path / "private"), anew=True)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.content_digest == second.content_digest


def test_an_entry_is_found_by_its_coordinates(store: Store, make: Make) -> None:
    make(split="train")
    make(split="test")
    make(split="test", backbone="densenet121")
    assert [info.coordinates["backbone"] for info in store.find(split="test")] == ["densenet121", "resnet50"]
    assert store.find(split="validation") == []
    (info,) = store.find(split="test", backbone="resnet50")
    assert (info.rows, info.dimension, info.dtype, info.classes) == (20, 5, "<f4", 3)
    assert store.read(info.key).path == info.path


def test_a_writer_resumes_where_it_was_left(store: Store, make: Make, tmp_path: Path) -> None:
    whole = make(into=Store(tmp_path / "other", private=tmp_path / "private"))
    with store.writer(key_of(), metadata(20)) as writer:
        writer.append(**batch(0, 7, 5, 3, False, np.float32))
    assert key_of() not in store
    with store.writer(key_of(), metadata(20)) as writer:
        assert writer.next_row == 7
        writer.append(**batch(7, 14, 5, 3, False, np.float32))
    entry = make()
    assert entry.path.read_bytes() == whole.path.read_bytes()
    assert not store.staging_folder(key_of()).exists()


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_tail_is_cut_off(store: Store, make: Make, tmp_path: Path, cut: int) -> None:
    whole = make(into=Store(tmp_path / "other", private=tmp_path / "private"))
    with store.writer(key_of(), metadata(20)) as writer:
        writer.append(**batch(0, 7, 5, 3, False, np.float32))
        writer.append(**batch(7, 14, 5, 3, False, np.float32))
    log = store.staging_folder(key_of()) / "batches.log"
    os.truncate(log, log.stat().st_size - cut)
    with store.writer(key_of(), metadata(20)) as writer:
        assert writer.next_row == 7
    assert make().path.read_bytes() == whole.path.read_bytes()


def test_other_metadata_start_over(store: Store) -> None:
    with store.writer(key_of(), metadata(20)) as writer:
        writer.append(**batch(0, 7, 5, 3, False, np.float32))
    with store.writer(key_of(), metadata(20, split="test")) as writer:
        assert writer.next_row == 0


def test_a_published_key_is_used(store: Store, make: Make) -> None:
    entry = make()
    with store.writer(key_of(), metadata(20)) as writer:
        assert writer.next_row == 20
        assert writer.published is not None
        assert writer.publish().content_digest == entry.content_digest


def test_excluded_rows_are_recorded(store: Store) -> None:
    rows = batch(0, 5, 4, 3, False, np.float32)
    with store.writer(key_of(), metadata(7)) as writer:
        writer.append(**{**rows, "stop": 6}, excluded=[("bad.jpg", "truncated file")])
        none = batch(0, 0, 4, 3, False, np.float32)
        writer.append(**{**none, "stop": 7}, excluded=[("worse.jpg", "not an image")])
        entry = writer.publish()
    assert entry.metadata["excluded"] == (("bad.jpg", "truncated file"), ("worse.jpg", "not an image"))
    assert entry.metadata["expected_rows"] == 7
    assert len(entry.ids) == 5


def test_nothing_incomplete_is_published(store: Store) -> None:
    with store.writer(key_of(), metadata(20)) as writer:
        writer.append(**batch(0, 7, 5, 3, False, np.float32))
        with pytest.raises(InvalidInputError, match="7 of 20 input rows"):
            writer.publish()
    with pytest.raises(KeyMissingError, match="no such entry"):
        store.read(key_of())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((7, 5), np.nan, np.float32)}, "row 0 .* not finite"),
        ({"features": np.zeros((7, 5), np.float64)}, "expected .* float32 or float16"),
        ({"features": np.zeros((6, 5), np.float32)}, "7 ids for 6 rows"),
        ({"labels": np.full(7, 3)}, "expected 0 ... 2 for 3 classes"),
        ({"labels": np.full(7, -1)}, "expected 0 ... 2 for 3 classes"),
        ({"labels": np.zeros(7, np.int32)}, "labels are int32"),
        ({"ids": ["a"] * 7}, "'a' occurs twice"),
        ({"ids": ["a\nb", *"bcdefg"]}, "control character"),
        ({"ids": ["\x1b[31m", *"bcdefg"]}, "control character"),
        ({"ids": ["x" * 1025, *"bcdefg"]}, "longer than"),
        ({"ids": ["", *"bcdefg"]}, "is no text"),
        ({"stop": 8}, "cannot end at row 8"),
        ({"row_metadata": {"group": ["a"]}}, "one value for each of 7 rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(store: Store, change: dict[str, Any], message: str) -> None:
    rows = batch(0, 7, 5, 3, False, np.float32)
    with store.writer(key_of(), metadata(7)) as writer:
        with pytest.raises(InvalidInputError, match=message):
            writer.append(**{**rows, **change})
        assert writer.next_row == 0
        writer.append(**rows)
        writer.publish()


def test_batches_have_to_be_alike(store: Store) -> None:
    with store.writer(key_of(), metadata(20)) as writer:
        writer.append(**batch(0, 7, 5, 3, False, np.float32))
        with pytest.raises(InvalidInputError, match="after batches with"):
            writer.append(**batch(7, 14, 6, 3, False, np.float32))
        with pytest.raises(InvalidInputError, match="after batches with"):
            writer.append(**{**batch(7, 14, 5, 3, False, np.float32), "row_metadata": {}})
        with pytest.raises(InvalidInputError, match="occurs twice"):
            writer.append(**{**batch(0, 7, 5, 3, False, np.float32), "stop": 14})


@pytest.mark.parametrize(
    "change",
    [
        {"coordinates": {"a": [1]}},
        {"coordinates": {"a": float("nan")}},
        {"class_names": []},
        {"class_names": ["a", "a"]},
        {"class_names": ["a\n"]},
        {"expected_rows": 0},
        {"multi_label": 1},
        {"unknown": 1},
    ],
)
def test_metadata_that_do_not_fit_are_refused(store: Store, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        store.writer(key_of(), {**metadata(7), **change})


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_text_that_is_no_key_is_refused(store: Store, key: str) -> None:
    with pytest.raises(InvalidInputError, match="is no cache key"):
        store.read(key)


def test_a_damaged_entry_is_set_aside(store: Store, make: Make) -> None:
    lines: list[str] = []
    store.notify = lines.append
    entry = make()
    flip(entry.path, entry.index.arrays["features"].offset + 3)
    with pytest.raises(DamagedEntryError, match="its data hash to") as caught:
        store.read(key_of())
    assert isinstance(caught.value, KeyMissingError)
    assert caught.value.moved_to is not None
    assert caught.value.moved_to.exists()
    assert lines == [], "whoever gets the error says it"
    assert key_of() not in store
    assert make().content_digest == entry.content_digest


def test_a_newer_format_is_left_alone(store: Store, make: Make) -> None:
    entry = make()
    raw = entry.path.read_bytes()
    block = unpack(lambda offset, count: raw[offset : offset + count], len(raw))
    head = bytearray(pack(block.index, block.block_bytes))
    head[len(MAGIC)] = 2
    import hashlib

    head[40:72] = hashlib.sha256(head[:40] + head[72:]).digest()
    entry.path.chmod(0o644)
    entry.path.write_bytes(bytes(head) + raw[len(head) :])
    with pytest.raises(NewerFormatError, match="format version 2"):
        store.read(key_of())
    assert entry.path.exists()


def test_the_entry_of_another_key_is_refused(store: Store, make: Make) -> None:
    entry = make()
    other = store.path_of(key_of(split="other"))
    other.parent.mkdir(parents=True, exist_ok=True)
    entry.path.rename(other)
    with pytest.raises(DamagedEntryError, match="holds the key"):
        store.read(key_of(split="other"))


def test_removed_entries_go_to_the_trash(store: Store, make: Make) -> None:
    entry = make()
    values = entry.features.copy()
    moved = store.remove(entry.key)
    assert key_of() not in store
    assert moved.exists()
    np.testing.assert_array_equal(entry.features, values)
    with pytest.raises(KeyMissingError):
        store.remove(entry.key)


def test_provenance_is_not_in_the_shared_bytes(store: Store, make: Make) -> None:
    entry = make()
    assert b"seconds" not in entry.path.read_bytes()
    assert json.loads(entry.path.with_suffix(".json").read_bytes())["host"] == "here"
    entry.path.with_suffix(".json").write_text("not json")
    assert store.read(key_of()).metadata["provenance"] == {}


def test_a_key_needs_its_ingredients_to_be_written(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="needs a CacheKey"):
        store.writer(str(key_of()), metadata(3))  # type: ignore[arg-type]
    assert isinstance(key_of(), CacheKey)
