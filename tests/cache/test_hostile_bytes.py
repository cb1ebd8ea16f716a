"""Damage: no changed byte gets past the reader, whatever and wherever it is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache import DamagedEntryError, Store
from cache.entry import load
from cache.layout import DefectError
from cache.verified import VerifiedFiles
from tests.cache.conftest import Make, key_of


class Forgetful(VerifiedFiles):
    """Remembers nothing, so that every reading verifies."""

    def knows(self, status: os.stat_result, index_sha256: str, key: str) -> bool:
        return False


@pytest.fixture
def forgetful(tmp_path: Path) -> VerifiedFiles:
    return Forgetful(tmp_path / "private")


def refused(path: Path, verified: VerifiedFiles) -> bool:
    try:
        load(path, key_of().digest, verified)
    except DefectError:
        return True
    return False


def flips(path: Path, positions: Iterator[tuple[int, int]], verified: VerifiedFiles) -> list[int]:
    """Flip bits in place, one after the other, and return those that were not noticed."""
    path.chmod(0o644)
    unnoticed = []
    with path.open("r+b", buffering=0) as file:
        for position, mask in positions:
            file.seek(position)
            byte = file.read(1)
            file.seek(position)
            file.write(bytes([byte[0] ^ mask]))
            if not refused(path, verified):
                unnoticed.append(position)
            file.seek(position)
            file.write(byte)
    assert not refused(path, verified)
    return unnoticed


def test_flipped_bytes_are_noticed(make: Make, forgetful: VerifiedFiles) -> None:
    path = make(rows=4, dimension=2).path
    size = path.stat().st_size
    chosen = [*range(72), *range(72, size, 61)]
    assert flips(path, ((p, 1 << p % 8) for p in chosen), forgetful) == []


@pytest.mark.slow
def test_every_flipped_byte_is_noticed(make: Make, forgetful: VerifiedFiles) -> None:
    path = make(rows=4, dimension=2).path
    assert flips(path, ((p, 1 << p % 8) for p in range(path.stat().st_size)), forgetful) == []


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_bits_of_a_larger_entry_are_noticed(make: Make, forgetful: VerifiedFiles, count: int) -> None:
    path = make(rows=700, dimension=1280).path
    dice = random.Random(7)
    size = path.stat().st_size
    assert size > 3_500_000
    assert (
        flips(path, ((dice.randrange(size), 1 << dice.randrange(8)) for _ in range(count)), forgetful) == []
    )


def mutated(raw: bytes, dice: random.Random) -> bytes:
    """Damage a file the way transfers, disks and editors do."""
    at, length = dice.randrange(len(raw)), dice.choice([1, 2, 8, 512, 4096])
    kind = dice.randrange(6)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + raw[at + length :]
    if kind == 2:
        return raw[:at] + dice.randbytes(length) + raw[at:]
    if kind == 3:
        return raw[:at] + bytes(length) + raw[at + length :]
    if kind == 4:
        return raw + dice.randbytes(length)
    return raw[:at] + dice.randbytes(length) + raw[at + length :]


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_refused(make: Make, forgetful: VerifiedFiles, tmp_path: Path, count: int) -> None:
    raw = make(rows=4, dimension=2).path.read_bytes()
    dice = random.Random(3)
    path = tmp_path / "mutated.h5"
    accepted = 0
    for _ in range(count):
        damaged = mutated(raw, dice)
        path.write_bytes(damaged)
        if not refused(path, forgetful) and damaged != raw:
            accepted += 1
    assert accepted == 0


def test_reading_never_loads_libhdf5(store: Store, make: Make, tmp_path: Path) -> None:
    good = make(split="good")
    bad = make(split="bad")
    bad.path.chmod(0o644)
    bad.path.write_bytes(bad.path.read_bytes()[:-1])
    program = """
import sys
from cache import DamagedEntryError, Store
store = Store(sys.argv[1], private=sys.argv[2])
store.read(sys.argv[3]).features.sum()
try:
    store.read(sys.argv[4])
except DamagedEntryError:
    print("refused", "h5py" in sys.modules)
"""
    arguments = [str(store.root), str(tmp_path / "private2"), good.key.digest, bad.key.digest]
    out = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert out.stdout == "refused False\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PENULTIMATE\r\n\x1a\n",
        b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12\n",
        b"\x89HDF\r\n\x1a\n" + bytes(4096),
        bytes(1 << 17),
    ],
    ids=["empty", "magic-only", "login-page", "lfs-pointer", "plain-hdf5", "zeros"],
)
def test_what_is_no_entry_is_set_aside(store: Store, content: bytes) -> None:
    path = store.path_of(key_of())
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DamagedEntryError) as caught:
        store.read(key_of())
    assert caught.value.moved_to is not None
    assert not path.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["fifo", "link", "dangling", "folder", "device", "socket"])
def test_other_kinds_of_files_are_refused(store: Store, make: Make, kind: str, tmp_path: Path) -> None:
    import socket

    entry = make(split="elsewhere")
    path = store.path_of(key_of())
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(entry.path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "absent")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        short = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(short))
            short.rename(path)
    else:
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes device files")
    with pytest.raises(DamagedEntryError, match=r"symbolic link|no regular file|no file"):
        store.read(key_of())
    assert entry.path.exists()


def test_a_truncation_after_verification_is_noticed(store: Store, make: Make) -> None:
    path = make(rows=50, dimension=300).path
    store.verified.remember(path.stat(), "whatever", key_of().digest)
    os.truncate(path, path.stat().st_size - 4096) if os.geteuid() == 0 else path.chmod(0o644)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DamagedEntryError):
        store.read(key_of())


def test_a_verified_entry_is_not_hashed_again(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    import cache.entry

    make()
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr("cache.verified.time.time_ns", lambda: later)
    store.read(key_of())
    monkeypatch.setattr(cache.entry, "digest_of_range", lambda *_: pytest.fail("hashed again"))
    assert np.isfinite(store.read(key_of()).features).all()
