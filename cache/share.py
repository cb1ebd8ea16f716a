"""Push and pull: data first, manifest last, verified before use, resumed where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cache.admit import admit, incoming_folder, parse_provenance
from cache.entry import Entry, read_provenance
from cache.errors import AmbiguousKeyError, DamagedEntryError, InvalidInputError, KeyMissingError
from cache.hashing import digest_of_range
from cache.keys import CacheKey, canonical_json, digest_of_key
from cache.locks import KeyLock
from cache.names import check_coordinates
from cache.remote import Remote
from cache.store import Store

MANIFEST_VERSION = 1
_LISTING_THREADS = 8

ShareProgress = Callable[[str, int, int], None]
"""Called with (key, bytes done, bytes in all)."""


@dataclass(frozen=True)
class Manifest:
    """What a remote says of one entry; believed only after the bytes were checked."""

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


@dataclass(frozen=True)
class Transfer:
    """What became of one key."""

    key: str
    status: Literal["sent", "received", "present", "different", "would send", "would receive"]
    """``different``: the other side has the key with other values; both stay as they are."""
    nbytes: int
    """Size of the entry's file."""
    deviation: float = 0.0
    """Of a pulled entry that is ``different``: largest difference relative to the largest magnitude."""


def push(
    store: Store,
    remote: Remote,
    keys: Iterable[CacheKey | str],
    *,
    dry_run: bool = False,
    progress: ShareProgress | None = None,
) -> list[Transfer]:
    """Copy entries to a remote, each verified before it leaves.

    Raises
    ------
    KeyMissingError, DamagedEntryError
        As `Store.read`, for the first key that has no sound entry.
    RemoteError
        The remote refused or cannot be reached; what was sent stays and is not sent again.
    """
    return [_push_one(store, remote, digest_of_key(key), dry_run, progress) for key in keys]


def pull(
    store: Store,
    remote: Remote,
    keys: Iterable[CacheKey | str],
    *,
    dry_run: bool = False,
    progress: ShareProgress | None = None,
) -> list[Transfer]:
    """Copy entries from a remote; none is seen here before every byte of it was verified.

    Raises
    ------
    KeyMissingError
        The remote has no such entry.
    DamagedEntryError
        What came is not what the manifest says; it was set aside.
    RemoteError
        The remote cannot be reached; what came stays, and the next call goes on from there.
    """
    return [_pull_one(store, remote, digest_of_key(key), dry_run, progress) for key in keys]


def list_remote(remote: Remote) -> list[Manifest]:
    """Return the manifests of a remote, sorted by coordinates; unsound ones are told and left out."""
    found = []
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        keys = remote.keys()
        for key, result in zip(keys, pool.map(lambda k: _manifest_or_reason(remote, k), keys), strict=True):
            if isinstance(result, Manifest):
                found.append(result)
            else:
                remote.notify(f"{remote.url}: manifest {key[:12]}... is left out: {result}")
    return sorted(found, key=lambda m: (sorted((n, str(v)) for n, v in m.coordinates.items()), m.key))


def find_remote(remote: Remote, **coordinates: str | float) -> list[Manifest]:
    """Return the manifests that have all these coordinates."""
    return [
        manifest
        for manifest in list_remote(remote)
        if all(manifest.coordinates.get(name) == value for name, value in coordinates.items())
    ]


def find_one_remote(remote: Remote, **coordinates: str | float) -> Manifest:
    """Return the only manifest with these coordinates.

    Raises
    ------
    KeyMissingError, AmbiguousKeyError
        There is none, or there are several.
    """
    found = find_remote(remote, **coordinates)
    asked = ", ".join(f"{name}={value}" for name, value in coordinates.items())
    if not found:
        raise KeyMissingError(f"{remote.url}: no entry with {asked}: push it, or extract it")
    if len(found) > 1:
        keys = ", ".join(manifest.key[:12] for manifest in found[:8])
        raise AmbiguousKeyError(f"{remote.url}: {len(found)} entries with {asked}: name one of {keys}")
    return found[0]


def read_manifest(remote: Remote, key: str) -> Manifest:
    """Fetch and check one manifest.

    Raises
    ------
    KeyMissingError
        The remote has none under this key.
    InvalidInputError
        It is not what a manifest is.
    """
    name = f"manifests/{key}.json"
    raw = remote.read_small(name)
    try:
        plain = json.loads(raw)
        if plain.pop("manifest_version") != MANIFEST_VERSION or plain["key"] != key:
            raise ValueError("another version or key")
        manifest = Manifest(**{**plain, "coordinates": check_coordinates(plain["coordinates"])})
        manifest = Manifest(
            **{**asdict(manifest), "provenance": parse_provenance(canonical_json(plain["provenance"]))}
        )
        digest_of_key(manifest.sha256)
        digest_of_key(manifest.content_digest)
        _check_numbers(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidInputError(
            f"{remote.url}: {name} is no manifest ({ascii(str(error))[:80]}): push it again"
        ) from error
    return manifest


def _check_numbers(manifest: Manifest) -> None:
    """Refuse sizes that are none."""
    for name in ("nbytes", "rows", "dimension", "classes"):
        value = getattr(manifest, name)
        if type(value) is not int or not 0 < value < 2**62:
            raise ValueError(f"{name} is no size")
    if manifest.dtype not in {"<f4", "<f2"} or type(manifest.multi_label) is not bool:
        raise ValueError("dtype or multi_label is wrong")


def _manifest_or_reason(remote: Remote, key: str) -> Manifest | str:
    """Fetch a manifest for a list, where one that is unsound must not hide the others."""
    try:
        return read_manifest(remote, key)
    except (InvalidInputError, KeyMissingError) as error:
        return str(error)


def _manifest_of(entry: Entry) -> Manifest:
    """Describe a verified entry for others."""
    with entry.path.open("rb") as file:
        size = entry.path.stat().st_size
        sha256 = digest_of_range(file.fileno(), 0, size)
    rows, dimension = entry.features.shape
    return Manifest(
        key=entry.key.digest,
        sha256=sha256,
        nbytes=size,
        content_digest=entry.content_digest,
        coordinates=dict(entry.index.coordinates),
        rows=rows,
        dimension=dimension,
        dtype=entry.features.dtype.str,
        classes=len(entry.index.class_names),
        multi_label=entry.index.multi_label,
        provenance=read_provenance(entry.path),
    )


def _push_one(
    store: Store, remote: Remote, key: str, dry_run: bool, progress: ShareProgress | None
) -> Transfer:
    """Send one entry: its bytes, then its manifest."""
    entry = store.read(key)
    manifest = _manifest_of(entry)
    there, unsound = _there(remote, key)
    if there is not None and remote.exists(there.data_name) == there.nbytes:
        same = there.content_digest == manifest.content_digest
        return Transfer(key, "present" if same else "different", manifest.nbytes)
    if dry_run:
        return Transfer(key, "would send", manifest.nbytes)
    remote.upload(entry.path, manifest.data_name, _for_key(key, progress))
    text = canonical_json({**asdict(manifest), "manifest_version": MANIFEST_VERSION})
    if not remote.create(f"manifests/{key}.json", text, replace=unsound):
        winner, _ = _there(remote, key)
        same = winner is not None and winner.content_digest == manifest.content_digest
        return Transfer(key, "sent" if same else "different", manifest.nbytes)
    return Transfer(key, "sent", manifest.nbytes)


def _pull_one(
    store: Store, remote: Remote, key: str, dry_run: bool, progress: ShareProgress | None
) -> Transfer:
    """Fetch one entry into the incoming folder, verify it, move it to its place."""
    manifest = read_manifest(remote, key)
    mine = _mine(store, key)
    if mine is not None and mine.content_digest == manifest.content_digest:
        return Transfer(key, "present", manifest.nbytes)
    if dry_run:
        return Transfer(key, "would receive", manifest.nbytes)
    waiting = incoming_folder(store) / f"{key}.{manifest.sha256}.part"
    with KeyLock(store.root / "locks", key).held(store.notify):
        remote.download(manifest.data_name, waiting, manifest.nbytes, _for_key(key, progress))
        admission = admit(
            store,
            waiting,
            key=key,
            content_digest=manifest.content_digest,
            provenance=manifest.provenance,
        )
    status: Literal["received", "present", "different"] = (
        "received" if admission.status == "added" else admission.status
    )
    return Transfer(key, status, manifest.nbytes, admission.deviation)


def _there(remote: Remote, key: str) -> tuple[Manifest | None, bool]:
    """Return the manifest that the remote has under a key, and whether there is one that is none."""
    try:
        return read_manifest(remote, key), False
    except KeyMissingError:
        return None, False
    except InvalidInputError as error:
        remote.notify(f"{error}: replaced")
        return None, True


def _mine(store: Store, key: str) -> Entry | None:
    """Return the entry that is here, if it is sound."""
    try:
        return store.read(key)
    except (KeyMissingError, DamagedEntryError):
        return None


def _for_key(key: str, progress: ShareProgress | None) -> Callable[[int, int], None] | None:
    """Return a progress callback of one key."""
    return None if progress is None else lambda done, total: progress(key, done, total)
