"""User blocks: no larger than an index needs, and cheap to refuse whatever size they declare."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from pathlib import Path

import pytest

import cache.deep
from cache import CacheReadError, DamagedEntryError, Store
from cache.layout import FORMAT_VERSION, MAGIC, block_bytes_for, memory_bound
from cache.verify import verify
from tests.cache import forge
from tests.cache.conftest import Make, key_of
from tests.cache.test_hostile_index import repeated


def sparse(path: Path, block_bytes: int, index: bytes, index_bytes: int) -> Path:
    """Make a small file that declares a vast block."""
    head = struct.pack("<16sIIQQ", MAGIC, FORMAT_VERSION, 0, block_bytes, index_bytes)
    forge.place(head + hashlib.sha256(head + index).digest() + index, path)
    with path.open("r+b") as file:
        file.truncate(block_bytes + 4096)
    return path


@pytest.mark.parametrize(
    ("index_bytes", "told"), [(2, "user block of 4294967296 bytes for an index of 2"), (1 << 31, "digest")]
)
def test_a_hole_takes_no_memory(store: Store, index_bytes: int, told: str) -> None:
    sparse(store.path_of(key_of()), 1 << 32, b"{}", index_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedEntryError, match=told):
            store.read(key_of())
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_zeros_behind_an_index_are_read_in_pieces(store: Store, raw: bytes) -> None:
    """A block that is larger than this program would make it, as earlier ones did, is read."""
    index, _ = forge.index_of(raw)
    wide = {**index["ingredients"], "samples": [[f"image {k}", "0" * 64] for k in range(10_000)]}
    text = forge.canonical_json({**index, "ingredients": wide})
    path = sparse(store.path_of(key_of()), 1 << 25, text, len(text))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedEntryError, match="overlap the user block"):
            store.read(key_of())
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    sparse(path, 1 << 25, text, len(text))
    with path.open("r+b") as file:
        file.seek(1 << 24)
        file.write(b"x")
    with pytest.raises(DamagedEntryError, match="bytes between its index and its HDF5 part"):
        store.read(key_of())


def test_an_index_of_samples_gets_the_smallest_block_that_is_enough() -> None:
    """As of ImageNet's training images with 64 float16 features each: the file is no less than its bound."""
    rows = 10_000
    index = repeated('["n0000#/n00000000_#.JPEG","' + "a" * 64 + '"]', rows)
    data = rows * (2 * 64 + 8 + 27)
    block = block_bytes_for(index, data)
    assert block // 2 + data < memory_bound(index) <= block + data


def test_what_could_not_be_looked_at_stays(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = make()
    monkeypatch.setattr(cache.deep, "_LEAST_SECONDS", 0.001)
    monkeypatch.setattr(cache.deep, "_BYTES_A_SECOND", 1e12)
    with pytest.raises(CacheReadError, match=r"could not be looked at: the child took longer .* run again"):
        verify(store, entry.key, deep=True)
    assert entry.path.exists()
