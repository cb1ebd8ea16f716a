"""The index of an entry: everything that it says about itself, and its place in the file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cache.keys import CacheKey, canonical_json, sha256_of

BLOCK_BYTES = 1 << 22
"""Bytes of an array that share one SHA-256."""
ARRAY_NAMES = ("features", "labels", "ids")

_ITEM_BYTES = {"<f4": 4, "<f2": 2, "<i8": 8, "|i1": 1}


@dataclass(frozen=True)
class ArraySpec:
    """Where an array lies in the file and what its bytes are."""

    dtype: str
    """numpy's spelling: "<f4", "<f2", "<i8", "|i1", "|S12"."""
    shape: tuple[int, ...]
    offset: int
    """From the start of the file, bytes."""
    blocks: tuple[str, ...]
    """SHA-256 of each `BLOCK_BYTES` of it, the last one shorter."""

    @property
    def nbytes(self) -> int:
        """Size in bytes, exact however large."""
        return math.prod(self.shape) * item_bytes(self.dtype)


@dataclass(frozen=True)
class Index:
    """Everything an entry says about itself."""

    ingredients_json: bytes
    """Canonical JSON; there is a line of it for each sample, and few who read an entry ask for them."""
    coordinates: Mapping[str, str | int | float]
    class_names: tuple[str, ...]
    multi_label: bool
    row_metadata: Mapping[str, tuple[str | None, ...]]
    excluded: tuple[tuple[str, str], ...]
    """(id, reason) of input rows that have no features."""
    arrays: Mapping[str, ArraySpec]
    data_sha256: str
    """Of everything behind the user block."""

    @cached_property
    def ingredients(self) -> dict[str, Any]:
        """What the entry was made from."""
        plain: dict[str, Any] = json.loads(self.ingredients_json)
        return plain

    @cached_property
    def key_digest(self) -> str:
        """The digest of the key that the ingredients give."""
        return hashlib.sha256(self.ingredients_json).hexdigest()

    @cached_property
    def key(self) -> CacheKey:
        """The key that the ingredients give."""
        return CacheKey(self.key_digest, self.ingredients, proved=True)

    @property
    def rows(self) -> int:
        """Rows of every array."""
        return self.arrays["features"].shape[0]

    @property
    def content_digest(self) -> str:
        """Digest of the values alone: the same whatever HDF5 wrote around them."""
        plain = self._fields()
        for spec in plain["arrays"].values():
            del spec["offset"]
        values = ("arrays", "class_names", "excluded", "multi_label", "row_metadata")
        return sha256_of({name: plain[name] for name in values}, parsed=True)

    def to_json(self) -> bytes:
        """Return the canonical JSON that goes into the file."""
        pieces = {name: canonical_json(value, parsed=True) for name, value in self._fields().items()}
        pieces["ingredients"] = self.ingredients_json
        return b"{" + b",".join(b'"%s":%s' % (name.encode(), pieces[name]) for name in sorted(pieces)) + b"}"

    def _fields(self) -> dict[str, Any]:
        """Return the plain form of all but the ingredients; every key in it is a str."""
        return {
            "arrays": {name: _spec_to_json(spec) for name, spec in self.arrays.items()},
            "block_bytes": BLOCK_BYTES,
            "class_names": list(self.class_names),
            "coordinates": dict(self.coordinates),
            "data_sha256": self.data_sha256,
            "excluded": [list(pair) for pair in self.excluded],
            "multi_label": self.multi_label,
            "row_metadata": {name: list(column) for name, column in self.row_metadata.items()},
        }


def item_bytes(dtype: str) -> int:
    """Bytes of one item of a dtype that an entry may hold."""
    return _ITEM_BYTES[dtype] if dtype in _ITEM_BYTES else int(dtype[2:])


def block_count(nbytes: int) -> int:
    """Blocks of an array of so many bytes."""
    return -(-nbytes // BLOCK_BYTES)


def _spec_to_json(spec: ArraySpec) -> dict[str, Any]:
    """Return the plain form of one array's place."""
    return {
        "blocks": list(spec.blocks),
        "dtype": spec.dtype,
        "offset": spec.offset,
        "shape": list(spec.shape),
    }
