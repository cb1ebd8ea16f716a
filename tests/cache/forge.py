"""Makes files that lie: real entries whose index or bytes were changed and whose digests were made to fit."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.hashing import BlockHasher
from cache.keys import canonical_json, sha256_of
from cache.layout import HEADER_BYTES, block_bytes_for, pack, unpack

Change = Callable[[dict[str, Any]], None]


def index_of(raw: bytes) -> tuple[dict[str, Any], int]:
    """Return the plain index of an entry and the size of its user block."""
    block = unpack(lambda offset, count: raw[offset : offset + count], len(raw))
    return json.loads(block.index), block.block_bytes


def with_index(raw: bytes, index: Any, data: bytes | None = None) -> bytes:
    """Put another index in front of an entry's data, with a digest that fits."""
    plain = index if isinstance(index, bytes) else canonical_json(index)
    _, block_bytes = index_of(raw)
    assert HEADER_BYTES + len(plain) <= block_bytes
    behind = raw[block_bytes:] if data is None else data
    return pack(plain, block_bytes).ljust(block_bytes, b"\0") + behind


def changed(raw: bytes, change: Change) -> bytes:
    """Change the index of an entry; every digest but those of the data fits afterwards."""
    index = copy.deepcopy(index_of(raw)[0])
    change(index)
    return with_index(raw, index)


def rewritten(raw: bytes, array: str, offset: int, values: bytes) -> bytes:
    """Change the values of an array and make all digests fit."""
    index, block_bytes = index_of(raw)
    start = index["arrays"][array]["offset"] + offset
    whole = raw[:start] + values + raw[start + len(values) :]
    return with_index(raw, fitting(index, whole, block_bytes), whole[block_bytes:])


def fitting(index: dict[str, Any], whole: bytes, block_bytes: int) -> dict[str, Any]:
    """Recompute the digests of the data in an index."""
    from cache.index import item_bytes

    for spec in index["arrays"].values():
        count = item_bytes(spec["dtype"])
        for size in spec["shape"]:
            count *= size
        hasher = BlockHasher()
        hasher.update(whole[spec["offset"] : spec["offset"] + count])
        spec["blocks"] = list(hasher.digests())
    index["data_sha256"] = hashlib.sha256(whole[block_bytes:]).hexdigest()
    return index


def in_front_of(hdf5: bytes, honest: bytes) -> bytes:
    """Give an arbitrary HDF5 part an index that serves the arrays of an honest entry.

    The HDF5 file must have been made with a user block as large as the honest one's. The honest arrays
    are appended behind it, where only the index knows of them.
    """
    index, block_bytes = index_of(honest)
    whole = hdf5.ljust(-(-len(hdf5) // 8) * 8, b"\0")
    for spec in index["arrays"].values():
        from cache.index import item_bytes

        count = item_bytes(spec["dtype"])
        for size in spec["shape"]:
            count *= size
        values = honest[spec["offset"] : spec["offset"] + count]
        spec["offset"] = len(whole)
        whole += values.ljust(-(-count // 8) * 8, b"\0")
    return with_index(honest, fitting(index, whole, block_bytes), whole[block_bytes:])


def digest_of_plain(index: dict[str, Any]) -> str:
    """Return the key that an index claims."""
    return sha256_of(index["ingredients"])


def place(raw: bytes, path: Path) -> Path:
    """Write a file where an entry would lie."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(raw)
    return path


__all__ = [
    "block_bytes_for",
    "changed",
    "digest_of_plain",
    "fitting",
    "in_front_of",
    "index_of",
    "place",
    "rewritten",
    "with_index",
]
