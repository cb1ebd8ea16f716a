"""What a remote says of an entry, in a small file of its own; believed only after the bytes were checked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from cache.entry import Entry, read_provenance
from cache.errors import InvalidInputError
from cache.hashing import digest_of_range
from cache.keys import canonical_json, digest_of_key
from cache.names import check_coordinates

MANIFEST_VERSION = 1
_SIZES = ("nbytes", "rows", "dimension", "classes")


@dataclass(frozen=True)
class Manifest:
    """What a remote says of one entry."""

    key: str
    sha256: str
    """Of the whole file."""
    nbytes: int
    content_digest: str
    coordinates: dict[str, str | int | float]
    rows: int
    dimension: int
    dtype: str
    classes: int
    multi_label: bool
    provenance: dict[str, Any]

    @property
    def data_name(self) -> str:
        """Where the bytes lie on the remote."""
        return f"data/{self.key}/{self.sha256}.h5"

    @property
    def name(self) -> str:
        """Where the manifest itself lies on the remote."""
        return f"manifests/{self.key}.json"


def describe(entry: Entry) -> Manifest:
    """Describe a verified entry for others; its whole file is hashed."""
    nbytes = entry.path.stat().st_size
    with entry.path.open("rb") as file:
        sha256 = digest_of_range(file.fileno(), 0, nbytes)
    told = _told_by_index(entry)
    return Manifest(
        key=entry.key.digest,
        sha256=sha256,
        nbytes=nbytes,
        provenance=read_provenance(entry.path),
        **told,
    )


def contradiction(manifest: Manifest, entry: Entry) -> str | None:
    """Say in what a manifest and the entry that came with it differ; None where they agree."""
    if entry.key.digest != manifest.key:
        return f"holds the key {entry.key.digest}, expected {manifest.key}"
    truth = _told_by_index(entry)
    if truth["content_digest"] != manifest.content_digest:
        return "is sound, but holds other values than was announced"
    for name, found in truth.items():
        said = getattr(manifest, name)
        if said != found:
            return f"is sound, but was announced with {name} {ascii(said)[:80]}, it has {ascii(found)[:80]}"
    return None


def contradicting(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests say different things, provenance aside."""
    return replace(one, provenance={}) != replace(other, provenance={})


def _told_by_index(entry: Entry) -> dict[str, Any]:
    """Return what a manifest repeats of an entry's index."""
    rows, dimension = entry.features.shape
    return {
        "content_digest": entry.content_digest,
        "coordinates": dict(entry.index.coordinates),
        "rows": rows,
        "dimension": dimension,
        "dtype": entry.features.dtype.str,
        "classes": len(entry.index.class_names),
        "multi_label": entry.index.multi_label,
    }


def to_plain(manifest: Manifest) -> dict[str, Any]:
    """Return the plain form that goes to a remote."""
    return {**asdict(manifest), "manifest_version": MANIFEST_VERSION}


def from_bytes(raw: bytes, key: str) -> Manifest:
    """Return a manifest that came from outside.

    Raises
    ------
    InvalidInputError
        It is not what the manifest of this key is; the message is the defect in a few words.
    """
    try:
        return from_plain(json.loads(raw), key)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"is no manifest ({ascii(str(error))[1:-1][:80]})") from error


def from_plain(plain: Any, key: str) -> Manifest:
    """Return a manifest from its decoded JSON.

    Raises
    ------
    ValueError
        It is none.
    """
    names = {field.name for field in fields(Manifest)}
    if not isinstance(plain, dict) or set(plain) != {*names, "manifest_version"}:
        raise ValueError("other fields than a manifest has")
    if plain["manifest_version"] != MANIFEST_VERSION or plain["key"] != key:
        raise ValueError("another version or key")
    if not isinstance(plain["provenance"], dict):
        raise ValueError("its provenance is no mapping")
    canonical_json(plain["provenance"])
    manifest = Manifest(
        **{name: plain[name] for name in names - {"coordinates"}},
        coordinates=check_coordinates(plain["coordinates"]),
    )
    digest_of_key(manifest.sha256)
    digest_of_key(manifest.content_digest)
    for name in _SIZES:
        value = getattr(manifest, name)
        if type(value) is not int or not 0 < value < 2**62:
            raise ValueError(f"{name} is no size")
    if manifest.dtype not in ("<f4", "<f2") or type(manifest.multi_label) is not bool:
        raise ValueError("dtype or multi_label is wrong")
    return manifest
