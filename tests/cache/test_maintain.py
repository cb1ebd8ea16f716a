from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import cache.inventory
from cache import AmbiguousKeyError, CacheKey, InvalidInputError, KeyMissingError, Store
from cache.maintain import collect, relabel, restore, to_collect, twins
from cache.sweep import drop_abandoned, empty_trash
from cache.writer import Writer
from tests.cache.conftest import Make, batch, key_of, metadata


def annotated(name: str) -> CacheKey:
    return key_of(annotations=name)


def test_relabelling_gives_what_extraction_would_have_given(store: Store, make: Make, tmp_path: Path) -> None:
    old = make(key=annotated("old"))
    (twin,) = twins(store, annotated("new"), except_for="annotations")
    assert twin.key == old.key.digest
    labels = (np.arange(20) + 1) % 3
    other = Store(tmp_path / "other", private=tmp_path / "private")
    with other.writer(annotated("new"), metadata(20)) as writer:
        rows = batch(0, 20, 5, 3, False, np.float32)
        writer.append(**{**rows, "labels": labels})
        fresh = writer.publish()
    wanted = {name: value for name, value in metadata(20).items() if name != "expected_rows"}
    again = relabel(store, twin.key, annotated("new"), labels, wanted)
    assert again.path.read_bytes() == fresh.path.read_bytes()
    with pytest.raises(InvalidInputError, match="19 labels for the 20 rows"):
        relabel(store, twin.key, annotated("newer"), labels[:-1], wanted)


def test_relabelling_keeps_excluded_rows(store: Store) -> None:
    with store.writer(annotated("old"), metadata(8)) as writer:
        rows = batch(0, 7, 5, 3, False, np.float32)
        writer.append(**{**rows, "stop": 8}, excluded=[("bad.jpg", "torn")])
        writer.publish()
    wanted = {name: value for name, value in metadata(8).items() if name != "expected_rows"}
    new = relabel(store, annotated("old"), annotated("new"), np.zeros(7, np.int64), wanted)
    assert new.metadata["excluded"] == (("bad.jpg", "torn"),)
    assert new.metadata["expected_rows"] == 8


def test_relabelling_with_columns_keeps_none_of_the_old(store: Store, make: Make) -> None:
    old = make(key=annotated("old"))
    assert set(old.row_metadata) == {"group", "image_sha256"}
    wanted = {name: value for name, value in metadata(20).items() if name != "expected_rows"}
    columns = {"group": ["g"] * 20}
    new = relabel(store, old.key, annotated("new"), np.array(old.labels), wanted, columns)
    assert dict(new.row_metadata) == {"group": ("g",) * 20}
    kept = relabel(store, old.key, annotated("newer"), np.array(old.labels), wanted)
    assert dict(kept.row_metadata) == dict(old.row_metadata)


def test_relabelling_goes_on_behind_what_was_staged(store: Store) -> None:
    """Input rows and features are out of step behind an excluded row: the order of the inputs tells by how much."""
    rows, bad = batch(0, 9, 5, 3, False, np.float32), ("bad.jpg", "torn")
    inputs = [*rows["ids"][:2], bad[0], *rows["ids"][2:]]
    first = {name: rows[name][:3] for name in ("features", "labels", "ids")}
    columns = {name: column[:3] for name, column in rows["row_metadata"].items()}
    for key in ("old", "new"):
        with store.writer(annotated(key), metadata(10)) as writer:
            writer.append(**first, row_metadata=columns, stop=4, excluded=[bad])
            if key == "old":
                rest = {name: rows[name][3:] for name in ("features", "labels", "ids")}
                more = {name: column[3:] for name, column in rows["row_metadata"].items()}
                writer.append(**rest, row_metadata=more, stop=10)
                old = writer.publish()
    wanted = {name: value for name, value in metadata(10).items() if name != "expected_rows"}
    new = relabel(store, old.key, annotated("new"), rows["labels"], wanted, inputs=inputs)
    assert (new.ids, new.metadata["excluded"]) == (old.ids, (bad,))
    np.testing.assert_array_equal(new.features, old.features)
    with pytest.raises(InvalidInputError, match="input rows named are not those of"):
        relabel(store, old.key, annotated("newer"), rows["labels"], wanted, inputs=inputs[::-1])


def test_what_to_collect_is_chosen_by_age_size_and_reference(store: Store, make: Make) -> None:
    for k, split in enumerate(("train", "validation", "test")):
        path = make(split=split).path
        os.utime(path, (1000.0 * (k + 1), 1000.0 * (k + 1)))
    infos = store.list()
    by_split = {info.coordinates["split"]: info for info in infos}
    size = infos[0].nbytes

    def chosen(**options: object) -> list[object]:
        return [info.coordinates["split"] for info in to_collect(infos, now=4000.0, **options)]  # type: ignore[arg-type]

    assert chosen(older_than=1500.0) == ["train", "validation"]
    assert chosen(older_than=1500.0, keep={by_split["train"].key}) == ["validation"]
    assert chosen(largest_total=2 * size) == ["train"]
    assert chosen(largest_total=2 * size, keep={by_split["train"].key}) == ["validation"]
    assert chosen(largest_total=0, keep={info.key for info in infos}) == []
    assert chosen(keep={by_split["test"].key}) == ["train", "validation"]


def test_collecting_harms_no_reader_and_has_a_grace(store: Store, make: Make) -> None:
    entry = make()
    values = np.array(entry.features)
    (info,) = store.list()
    assert [moved.key for moved in collect(store, [info])] == [info.key]
    np.testing.assert_array_equal(entry.features, values)
    with pytest.raises(KeyMissingError):
        store.read(info.key)
    assert restore(store, info.key).content_digest == entry.content_digest
    collect(store, store.list())
    assert empty_trash(store, grace=60.0).folders == 0
    emptied = empty_trash(store, grace=60.0, now=time.time() + 100)
    assert (emptied.folders, emptied.nbytes > info.nbytes) == (1, True)
    np.testing.assert_array_equal(entry.features, values)
    with pytest.raises(KeyMissingError, match="not in the trash"):
        restore(store, info.key)


def test_a_good_copy_in_the_trash_outlives_a_bad_one_in_its_place(store: Store, make: Make) -> None:
    entry = make()
    raw = entry.path.read_bytes()
    trashed = store.remove(entry.key)
    entry.path.write_bytes(raw[:-1])
    assert restore(store, entry.key).content_digest == entry.content_digest
    assert entry.path.read_bytes() == raw
    trashed = store.remove(entry.key)
    make(anew=True)
    assert restore(store, entry.key).path.read_bytes() == raw
    assert trashed.read_bytes() == raw


def test_what_was_used_meanwhile_stays(store: Store, make: Make) -> None:
    entry = make()
    (info,) = store.list()
    os.utime(entry.path, (time.time() + 5, entry.path.stat().st_mtime))
    lines: list[str] = []
    store.notify = lines.append
    assert collect(store, [info]) == []
    assert "was used meanwhile" in lines[0]
    assert entry.key in store


def test_abandoned_rows_are_dropped_unless_somebody_works_on_them(store: Store) -> None:
    with store.writer(key_of(), metadata(20)) as writer:
        writer.append(**batch(0, 7, 5, 3, False, np.float32))
        later = time.time() + 1000
        assert drop_abandoned(store, older_than=500.0, now=later).folders == 0
        assert isinstance(writer, Writer)
    assert drop_abandoned(store, older_than=2000.0, now=later).folders == 0
    assert drop_abandoned(store, older_than=500.0, now=later).folders == 1
    assert not store.staging_folder(key_of()).exists()


def test_one_entry_or_a_question(store: Store, make: Make) -> None:
    make(split="train")
    make(split="test")
    assert store.find_one(split="test").coordinates["split"] == "test"
    with pytest.raises(
        AmbiguousKeyError, match=r"2 entries with backbone=resnet50: name one of .*split=test"
    ):
        store.find_one(backbone="resnet50")
    with pytest.raises(KeyMissingError, match="no entry with split=none"):
        store.find_one(split="none")


def copies(store: Store, raw: bytes, count: int) -> None:
    """Fill a store with entries that differ in their coordinates and key only."""
    from tests.cache import forge

    for k in range(count):

        def change(index: dict[str, object], k: int = k) -> None:
            index["ingredients"] = {"number": k}
            index["coordinates"] = {"backbone": f"net{k}", "split": "test"}

        lie = forge.changed(raw, change)
        forge.place(lie, store.path_of(CacheKey.from_ingredients({"number": k})))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_long_list_reads_no_entry_twice(
    store: Store,
    raw: bytes,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The seconds of both lists are reported (`pytest -rP`), not judged: machines are noisy."""
    copies(store, raw, count)
    now = time.time_ns()
    monkeypatch.setattr("cache.catalogue.time.time_ns", lambda: now + 10**10)
    read = []
    read_head = cache.inventory.read_head
    monkeypatch.setattr(
        "cache.inventory.read_head", lambda path, key: read.append(key) or read_head(path, key)
    )
    lists = []
    for name in ("first", "second"):
        start = time.monotonic()
        lists.append(store.list())
        seconds = time.monotonic() - start
        print(f"{count} entries, {name} list: {seconds:.2f} s")  # noqa: T201
    first, second = lists
    assert len(second) == len(read) == count
    assert [info.key for info in first] == [info.key for info in second]
    assert [info.coordinates for info in first] == [info.coordinates for info in second]


def test_a_changed_entry_is_not_remembered_as_it_was(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make()
    now = time.time_ns()
    monkeypatch.setattr("cache.catalogue.time.time_ns", lambda: now + 10**10)
    store.list()
    entry.path.chmod(0o644)
    with entry.path.open("r+b") as file:
        file.write(b"\0")
    assert store.list() == []
