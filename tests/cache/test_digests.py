from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cache import FileDigests, InvalidInputError


def old_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, (time.time() - 100, time.time() - 100))
    return path


def test_digests_are_those_of_the_bytes(tmp_path: Path) -> None:
    files = [old_file(tmp_path / f"{k}.jpg", bytes([k]) * k) for k in range(9)]
    digests = FileDigests(tmp_path / "memory.sqlite").digest_many([*files, files[3]])
    assert digests == [hashlib.sha256(bytes([k]) * k).hexdigest() for k in [*range(9), 3]]


def test_a_remembered_file_is_not_read_again_and_rehash_distrusts(tmp_path: Path) -> None:
    path = old_file(tmp_path / "a.jpg", b"one")
    memory = FileDigests(tmp_path / "memory.sqlite")
    first = memory.digest(path)
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert FileDigests(tmp_path / "memory.sqlite").digest(path) == first
    assert memory.digest(path, rehash=True) == hashlib.sha256(b"two").hexdigest()
    assert memory.digest(path) == hashlib.sha256(b"two").hexdigest()


def test_a_fresh_file_is_never_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    status = path.stat()
    memory = FileDigests(tmp_path / "memory.sqlite")
    memory.digest(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert memory.digest(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("change", ["size", "mtime", "inode"])
def test_a_changed_stamp_is_hashed_again(tmp_path: Path, change: str) -> None:
    path = old_file(tmp_path / "a.jpg", b"one")
    memory = FileDigests(tmp_path / "memory.sqlite")
    memory.digest(path)
    status = path.stat()
    content = b"longer" if change == "size" else b"two"
    if change == "inode":
        old_file(tmp_path / "b.jpg", content).replace(path)
    else:
        path.write_bytes(content)
    shift = 1 if change == "mtime" else 0
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + shift))
    assert memory.digest(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("damage", [b"this is no database" * 9, b"SQLite format 3\x00" + b"\xff" * 400])
def test_a_damaged_memory_costs_only_time(tmp_path: Path, damage: bytes) -> None:
    path = old_file(tmp_path / "a.jpg", b"one")
    (tmp_path / "memory.sqlite").write_bytes(damage)
    assert FileDigests(tmp_path / "memory.sqlite").digest(path) == hashlib.sha256(b"one").hexdigest()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent.jpg", ".", "pipe"):
        with pytest.raises(InvalidInputError):
            FileDigests(tmp_path / "memory.sqlite").digest(tmp_path / name)


def test_progress_counts_files(tmp_path: Path) -> None:
    files = [old_file(tmp_path / f"{k}.jpg", bytes([k])) for k in range(3)]
    seen: list[tuple[int, int]] = []
    FileDigests(tmp_path / "m.sqlite").digest_many(
        files, progress=lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
