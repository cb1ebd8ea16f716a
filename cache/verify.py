"""Is a stored entry what it says? Every byte, a sample of blocks, or its HDF5 side as well."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.deep import deep_contradictions
from cache.entry import OpenEntry, map_entry, open_entry, verify_values
from cache.hashing import BytesDone, digest_of_range
from cache.index import BLOCK_BYTES, ArraySpec
from cache.keys import CacheKey, digest_of_key
from cache.layout import DefectError
from cache.refusals import refusals

if TYPE_CHECKING:
    from cache.store import Store


@dataclass(frozen=True)
class Verification:
    """A sound entry, and what it took to know."""

    key: str
    """64 hex digits."""
    path: Path
    nbytes: int
    """Bytes that were hashed."""
    deep: bool
    """Whether the HDF5 side was compared too."""
    seconds: float


def verify(
    store: Store,
    key: CacheKey | str,
    *,
    sample: int | None = None,
    deep: bool = False,
    progress: BytesDone | None = None,
) -> Verification:
    """Check an entry again, trusting nothing that was remembered about it.

    Parameters
    ----------
    store : Store
        Where it lies.
    key : CacheKey or str
        Which one.
    sample : int, optional
        Hash only so many blocks of 4 MiB, drawn anew each time; default: every byte, in one piece and
        block by block, and whether the values make sense.
    deep : bool
        Compare the index with what libhdf5 reads as well, in a limited child process.
    progress : callable, optional
        Gets (bytes hashed, bytes in all).

    Raises
    ------
    KeyMissingError, NewerFormatError, CacheReadError
        As `Store.read`.
    DamagedEntryError
        A check failed; the entry was set aside.
    """
    path = store.path_of(key)
    start = time.monotonic()
    with refusals(path, store.root), open_entry(path) as opened:
        if opened.index.key_digest != digest_of_key(key):
            raise DefectError(f"holds the key {opened.index.key_digest}, expected {digest_of_key(key)}")
        with ThreadPoolExecutor(1) as pool:
            blocks = pool.submit(_verify_blocks, opened, sample)
            if sample is None:
                verify_values(map_entry(path, opened), opened, progress, store.check)
            nbytes = blocks.result()
        for contradiction in deep_contradictions(path) if deep else ():
            raise DefectError(f"its HDF5 side contradicts its index: {contradiction}")
        if sample is None:
            store.verified.remember(opened.status, opened.block.index_sha256, digest_of_key(key))
    return Verification(digest_of_key(key), path, nbytes, deep, time.monotonic() - start)


def _verify_blocks(opened: OpenEntry, sample: int | None) -> int:
    """Hash all blocks or some of them; return how many bytes that were."""
    blocks = [(name, spec, k) for name, spec in opened.index.arrays.items() for k in range(len(spec.blocks))]
    if sample is not None:
        blocks = random.SystemRandom().sample(blocks, min(max(1, sample), len(blocks)))
    total = 0
    for name, spec, number in blocks:
        begin, end = _range_of(spec, number)
        if digest_of_range(opened.file.fileno(), begin, end) != spec.blocks[number]:
            raise DefectError(f"block {number} of its {name} has another digest than the index says")
        total += end - begin
    return total


def _range_of(spec: ArraySpec, number: int) -> tuple[int, int]:
    """Return where a block of an array begins and ends in the file."""
    begin = spec.offset + number * BLOCK_BYTES
    return begin, min(begin + BLOCK_BYTES, spec.offset + spec.nbytes)
