"""The trash: what is in it is never overwritten, and nothing but the cache's own is ever deleted."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import cache.maintain
import cache.sweep
from cache import Entry, KeyMissingError, Store
from cache.maintain import restore
from cache.sweep import Emptied, drop_leftovers, drop_unused, empty_trash, keys_in_trash
from tests.cache.conftest import Make, batch, key_of, metadata
from tests.cache.test_sweep import DIGEST, put


def write(store: Store, factor: float) -> Entry:
    with store.writer(key_of(), metadata(20)) as writer:
        rows = batch(0, 20, 5, 3, False, np.float32)
        writer.append(**{**rows, "features": rows["features"] * np.float32(factor)})
        return writer.publish()


def test_two_removals_of_a_key_are_two_and_the_newest_comes_back(store: Store) -> None:
    contents = []
    for factor in (1.0, 2.0):
        contents.append(write(store, factor).content_digest)
        store.remove(key_of())
    assert keys_in_trash(store) == [key_of().digest]
    assert restore(store, key_of()).content_digest == contents[1]
    assert store.read(key_of()).metadata["provenance"] == {"host": "here", "seconds": 1.5}
    store.path_of(key_of()).unlink()
    assert restore(store, key_of()).content_digest == contents[0]
    assert keys_in_trash(store) == list((store.root / "trash").iterdir()) == []


def test_what_is_removed_while_the_trash_is_emptied_stays_in_it(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remove(make().key)
    make()
    delete = cache.sweep._delete

    def while_removing(*arguments: object) -> Emptied:
        if key_of() in store:
            store.remove(key_of())
        return delete(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache.sweep, "_delete", while_removing)
    assert empty_trash(store, grace=60.0, now=time.time() + 100).folders == 1
    assert keys_in_trash(store) == [key_of().digest]


def test_a_place_that_is_taken_at_the_last_moment(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trashed = store.remove(make().key)
    place, lines = cache.maintain.place_if_absent, []
    store.notify = lines.append

    def taken(source: Path, target: Path) -> bool:
        target.write_bytes(trashed.read_bytes())
        return place(source, target)

    monkeypatch.setattr(cache.maintain, "place_if_absent", taken)
    assert restore(store, key_of()).key == key_of()
    assert trashed.exists()
    assert "is there already" in lines[0]


def test_what_an_earlier_version_removed_comes_back_and_goes(store: Store, make: Make) -> None:
    entry = make()
    folder = store.root / "trash" / entry.key.digest
    folder.mkdir(parents=True)
    for path in (entry.path, entry.path.with_suffix(".json")):
        path.rename(folder / path.name)
    assert restore(store, entry.key).metadata["provenance"] == {"host": "here", "seconds": 1.5}
    assert not folder.exists()
    folder.mkdir()
    entry.path.rename(folder / entry.path.name)
    other = put(folder / "note.txt")
    assert empty_trash(store, grace=-1.0, dry_run=True).folders == 1
    assert empty_trash(store, grace=-1.0).folders == 1
    assert [path.name for path in folder.iterdir()] == [other.name]
    with pytest.raises(KeyMissingError, match="not in the trash"):
        restore(store, entry.key)


def test_only_what_the_cache_named_is_deleted(store: Store, tmp_path: Path) -> None:
    store.root.mkdir()
    mine = [
        put(store.root / "trash" / "thesis.pdf"),
        put(store.root / "trash" / "folder" / "note.txt"),
        put(store.root / "quarantine" / "note.txt"),
        put(store.root / "thesis.part"),
        put(tmp_path / "pixels" / f"backup-{DIGEST}.rgb"),
        put(tmp_path / "pixels" / f"{DIGEST}.rgb.bak"),
    ]
    put(store.root / "quarantine" / f"{DIGEST}.pulled.h5", 5)
    put(tmp_path / "pixels" / f".{DIGEST}.01234567.part", 7)
    assert empty_trash(store, grace=-1.0).nbytes == 5
    assert drop_leftovers(store) == Emptied()
    assert drop_unused(tmp_path / "pixels") == Emptied(1, 7)
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize("name", ["trash", "quarantine"])
def test_a_link_to_another_folder_is_not_emptied(store: Store, tmp_path: Path, name: str) -> None:
    theirs = [
        put(tmp_path / "theirs" / f"{DIGEST}.h5.01234567"),
        put(tmp_path / "theirs" / f"{DIGEST}.1-01234567.h5"),
    ]
    store.root.mkdir()
    (store.root / name).symlink_to(tmp_path / "theirs")
    assert empty_trash(store, grace=-1.0) == Emptied()
    assert all(path.exists() for path in theirs)
