"""Memories save work and nothing else: damaged, locked or forbidden ones change no answer."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from cache import Store
from cache.memory import Memory
from tests.cache.conftest import Make

TABLE = "create table if not exists t (a integer primary key, b text)"


def filled(path: Path, rows: int = 3) -> Memory:
    memory = Memory(path, TABLE)
    memory.remember("insert or replace into t values (?, ?)", [(k, f"text {k}") for k in range(rows)])
    return memory


def test_rows_come_back_in_another_process_s_eyes(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "m.sqlite")
    assert Memory(tmp_path / "new" / "m.sqlite", TABLE).recall("select b from t where a = ?", [2]) == [
        ("text 2",)
    ]


@pytest.mark.parametrize("garbage", [b"no sqlite file at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_has_remembered_nothing_and_is_replaced(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "m.sqlite"
    path.write_bytes(garbage)
    memory = Memory(path, TABLE)
    assert memory.recall("select * from t") == []
    assert not path.exists()
    assert filled(path).recall("select count(*) from t") == [(3,)]


def test_every_damaged_page_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    filled(path, 2000)
    sound = path.read_bytes()
    for start in range(0, len(sound), 1024):
        path.write_bytes(sound[:start] + b"\xa5" * 1024 + sound[start + 1024 :])
        memory = Memory(path, TABLE)
        memory.recall("select * from t")
        memory.recall("select * from t")
        filled(path)
        filled(path)
        assert set(memory.recall("select a from t where a < 3")) == {(0,), (1,), (2,)}


def test_a_lock_that_is_held_costs_the_memory_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.memory._SECONDS", 0.05)
    memory = filled(tmp_path / "m.sqlite")
    other = sqlite3.connect(tmp_path / "m.sqlite")
    other.execute("begin exclusive")
    assert memory.recall("select * from t") == []
    memory.remember("insert into t values (?, ?)", [(9, "x")])
    other.rollback()
    other.close()
    assert memory.recall("select count(*) from t") == [(3,)]


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert filled(tmp_path / "file" / "m.sqlite").recall("select * from t") == []


def test_a_store_with_damaged_memories_answers_the_same(
    store: Store, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make()
    later = time.time_ns() + 10**10
    monkeypatch.setattr("cache.catalogue.time.time_ns", lambda: later)
    monkeypatch.setattr("cache.verified.time.time_ns", lambda: later)
    listed, digest = store.list(), store.read(entry.key).content_digest
    memories = [tmp_path / "private" / name for name in ("catalogue.sqlite", "verified.sqlite")]
    for memory in memories:
        sound = memory.read_bytes()
        assert b"resnet50" in sound or b"verified" in sound
        for raw in (b"", b"garbage" * 1000, sound.replace(b"resnet50", b"resnet51"), sound[:5000]):
            memory.write_bytes(raw)
            assert store.list() == listed
            assert store.read(entry.key).content_digest == digest
