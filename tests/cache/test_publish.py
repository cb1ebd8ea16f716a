"""The last step of writing, and what a writer finds in the way of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import CacheWriteError, DamagedEntryError, InvalidInputError, Store
from cache.admit import admit, incoming_folder
from cache.annotations import Annotations
from cache.children import Answer, run_builder, run_child
from cache.entry import read_provenance
from cache.foreign import import_hdf5
from cache.hand_over import export_entry, import_entry
from cache.publish import publish
from tests.cache import forge
from tests.cache.conftest import Make, batch, key_of, metadata

PROVED = "0" * 64


def finished(store: Store, content: bytes) -> Path:
    path = incoming_folder(store) / f"{len(content)}.h5"
    path.write_bytes(content)
    return path


def test_the_loser_of_a_race_leaves_the_winners_provenance(store: Store) -> None:
    target = store.path_of(key_of())
    won = publish(store.root, finished(store, b"first"), target, {"by": "first"}, PROVED)
    lost = publish(store.root, finished(store, b"second"), target, {"by": "second"}, PROVED)
    assert (won.placed, won.proved) == (True, PROVED)
    assert (lost.placed, lost.proved) == (False, None)
    assert target.read_bytes() == b"first"
    assert read_provenance(target) == {"by": "first"}
    assert list(incoming_folder(store).iterdir()) == []


def test_the_winner_replaces_provenance_that_the_loser_left(store: Store) -> None:
    """The other wrote its provenance first and had not placed its file when this one did."""
    target = store.path_of(key_of())
    target.parent.mkdir(parents=True)
    target.with_suffix(".json").write_text('{"by":"loser"}')
    assert publish(store.root, finished(store, b"mine"), target, {"by": "winner"}, PROVED).placed
    assert read_provenance(target) == {"by": "winner"}


def test_an_entry_is_never_without_provenance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens before the file has its name, its provenance is there already."""
    target = store.path_of(key_of())

    def killed(_source: Path, at: Path) -> bool:
        assert read_provenance(at) == {"by": "me"}
        raise KeyboardInterrupt

    monkeypatch.setattr("cache.publish.place_if_absent", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(store.root, finished(store, b"mine"), target, {"by": "me"}, PROVED)
    assert not target.exists()


def test_a_copy_made_after_the_proof_is_proved_again(
    store: Store, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file is copied once it was verified: a disk that errs then must not go unnoticed."""

    def bad_copy(path: Path, _root: Path) -> Path:
        other = path.with_name("copy.h5")
        other.write_bytes(path.read_bytes()[:-1] + b"\xff")
        path.unlink()
        return other

    monkeypatch.setattr("cache.publish.sealed", bad_copy)
    with pytest.raises(DamagedEntryError, match="its data hash to"):
        admit(store, finished(store, raw))
    assert key_of() not in store


def test_what_is_published_needs_no_lock(store: Store, make: Make) -> None:
    entry = make()
    shutil.rmtree(store.root / "locks", ignore_errors=True)
    (store.root / "locks").write_text("nothing can be locked here")
    with store.writer(entry.key, metadata(20)) as writer:
        assert writer.next_row == 20
        assert writer.publish().content_digest == entry.content_digest


def test_damage_that_a_writer_mends_is_told_once(store: Store, make: Make) -> None:
    lines: list[str] = []
    store.notify = lines.append
    forge.place(b"<html>", make().path)
    assert make(anew=True).key == key_of()
    assert len(lines) == 1
    assert "set aside as" in lines[0]


@pytest.mark.parametrize("doing", ["writing", "importing"])
def test_damage_that_cannot_be_moved_is_a_write_error(
    store: Store, make: Make, tmp_path: Path, doing: str
) -> None:
    entry = make()
    handed = export_entry(store, entry.key, tmp_path / "handed.h5")
    forge.place(b"<html>", entry.path)
    (store.root / "quarantine").write_text("in the way")
    with pytest.raises(CacheWriteError, match=r"quarantine \(Not a directory\): see to that, then run again"):
        if doing == "writing":
            make(anew=True)
        else:
            import_entry(store, handed)
    with pytest.raises(DamagedEntryError, match="not used, treated as missing: it cannot be moved to"):
        store.read(entry.key)
    assert entry.path.read_bytes() == b"<html>"


@pytest.mark.parametrize(
    ("signal", "advice"), [(9, "ran out of memory: free memory"), (11, "free memory and space")]
)
def test_a_builder_that_was_killed_says_why(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: int, advice: str
) -> None:
    (tmp_path / "ends_itself.py").write_text(f"import os\nos.kill(os.getpid(), {signal})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def other(_module: str, _arguments: list[str]) -> Answer:
        return run_child("ends_itself", [])

    monkeypatch.setattr("cache.children.run_child", other)
    with pytest.raises(CacheWriteError, match=advice):
        run_builder(tmp_path / "log", tmp_path / "entry.h5")


def annotations(rows: int) -> Annotations:
    return Annotations(tuple(map(str, range(rows))), np.zeros(rows, np.int64), ("a",), False)


def test_an_import_of_hdf5_leaves_nothing_and_names_the_file(store: Store, tmp_path: Path) -> None:
    where: dict[str, Any] = {"backbone": "b", "dataset": "d", "split": "train"}
    path = tmp_path / "theirs.h5"
    for values, said in ((np.full((2, 3), np.nan), "row 0"), (np.ones((3, 3)), "has the shape")):
        with h5py.File(path, "w") as file:
            file["features"] = values
        with pytest.raises(InvalidInputError, match=rf"theirs\.h5: .*{said}"):
            import_hdf5(store, path, annotations(2), where)
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 3))
    entry = import_hdf5(store, path, annotations(2), where)
    assert entry.metadata["provenance"] == {
        "features": "theirs.h5",
        "hdf5": "theirs.h5",
        "dataset": "features",
    }
    assert list(incoming_folder(store).iterdir()) == []
    assert {folder.name for folder in store.root.iterdir()} <= {"entries", "incoming", "locks", "staging"}


def test_an_export_beside_something_else_leaves_it(store: Store, make: Make, tmp_path: Path) -> None:
    entry = make()
    (tmp_path / "mine.json").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"mine\.json: exists already"):
        export_entry(store, entry.key, tmp_path / "mine.h5")
    assert (tmp_path / "mine.json").read_text() == "mine"
    assert not (tmp_path / "mine.h5").exists()


def test_ids_of_any_characters_that_are_text_are_kept(store: Store) -> None:
    names = ["../../etc/passwd", "..", "/abs", "é" * 512, "a b'c\"d", "$(id)"]
    rows = batch(0, 6, 4, 3, False, np.float32)
    with store.writer(key_of(), metadata(6)) as writer:
        writer.append(**{**rows, "ids": names})
        assert writer.publish().ids == tuple(names)
    assert len(list(store.root.rglob("*.h5"))) == 1
