"""What is deleted for good, and what is not: fresh things, locks that are held, what others own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cache import Store
from cache.locks import KeyLock, silent
from cache.sweep import DAY_SECONDS, Emptied, drop_leftovers, drop_unused, empty_trash
from tests.cache.conftest import Make

DIGEST = "ab" * 32
OLD = time.time() - 40 * DAY_SECONDS


def put(path: Path, size: int = 10, *, when: float = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (when, when))
    return path


def test_leftovers_go_and_everything_else_stays(store: Store, make: Make) -> None:
    entry = make()
    os.utime(entry.path, (OLD, OLD))
    parts = [
        put(store.root / "entries" / "ab" / ".x.h5.12.34.part", 100),
        put(store.root / "incoming" / f"{DIGEST}.{DIGEST}.part", 200),
        put(store.root / "locks" / f".{DIGEST}.holder.1.2.part", 300),
        put(store.root / ".entries.1.2.part" / "inside", 0).parent,
    ]
    os.utime(parts[-1], (OLD, OLD))
    fresh = put(store.root / "incoming" / "y.part", when=time.time())
    other = put(store.root / "incoming" / "not-ours.txt")
    told: list[str] = []
    store.notify = told.append
    assert drop_leftovers(store, dry_run=True) == Emptied(4, 600)
    assert drop_leftovers(store) == Emptied(4, 600)
    assert not any(part.exists() for part in parts)
    assert fresh.exists()
    assert other.exists()
    assert store.read(entry.key).content_digest == entry.content_digest
    assert told == []
    assert drop_leftovers(store) == Emptied()


def test_locks_that_nobody_holds_go(store: Store) -> None:
    locks = store.root / "locks"
    held, free = "cd" * 32, DIGEST
    for name in (held, free):
        with KeyLock(locks, name).held(silent):
            pass
        put(locks / f"{name}.holder")
        os.utime(locks / f"{name}.lock", (OLD, OLD))
    put(locks / f"{free}.lease" / "00000001")
    os.utime(locks / f"{free}.lease", (OLD, OLD))
    with KeyLock(locks, held).held(silent):
        put(locks / f"{held}.holder")
        os.utime(locks / f"{held}.lock", (OLD, OLD))
        drop_leftovers(store)
        assert {path.name for path in locks.iterdir()} == {f"{held}.lock", f"{held}.holder"}
        with pytest.raises(TimeoutError), KeyLock(locks, held).held(silent, 0.0):
            raise AssertionError("the lock was lost")
    with KeyLock(locks, free).held(silent, 0.0):
        assert (locks / f"{free}.lock").exists()


def test_unused_files_go_with_all_of_their_kind(tmp_path: Path) -> None:
    used, unused = "cd" * 32, DIGEST
    for name in (used, unused):
        put(tmp_path / f"{name}.rgb", 1000)
        put(tmp_path / f"{name}.json", 10)
        put(tmp_path / f"{name}.lock", 0)
    os.utime(tmp_path / f"{used}.rgb", (time.time(), OLD))
    put(tmp_path / "readme.txt")
    assert drop_unused(tmp_path) == Emptied(3, 1010)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{used}.json",
        f"{used}.lock",
        f"{used}.rgb",
        "readme.txt",
    ]
    assert drop_unused(tmp_path / "absent") == Emptied()


def test_files_in_use_stay(tmp_path: Path) -> None:
    put(tmp_path / f"{DIGEST}.rgb")
    with KeyLock(tmp_path, DIGEST).held(silent):
        for path in tmp_path.iterdir():
            os.utime(path, (OLD, OLD))
        assert drop_unused(tmp_path) == Emptied()
        assert (tmp_path / f"{DIGEST}.rgb").exists()


def test_what_cannot_be_deleted_is_told_and_not_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder of two belongs to somebody else, and a file in quarantine does too."""
    put(store.root / "trash" / f"{'aa' * 32}.1-01234567.h5", 100)
    theirs = put(store.root / "trash" / f"{'bb' * 32}.1-01234567.h5", 200)
    put(store.root / "quarantine" / f"{'bb' * 32}.h5.01234567", 400)
    told: list[str] = []
    store.notify = told.append
    really = os.unlink

    def refusing(path: object, *arguments: object, **options: object) -> None:
        if "bb" * 32 in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        really(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("os.unlink", refusing)
    assert empty_trash(store, grace=-1.0) == Emptied(1, 100)
    assert [line.partition(": ")[2] for line in told] == [
        "cannot be deleted (Permission denied), stays: its owner can"
    ] * 2
    assert theirs.exists()
    monkeypatch.undo()
    assert empty_trash(store, grace=-1.0) == Emptied(2, 600)
