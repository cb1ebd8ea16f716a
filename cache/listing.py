"""Which entries a remote has: its manifests, read at once from a file that pushers keep for those who list.

::

    URL/listings/COUNT-SHA256.json    {"KEY": [stamp, manifest], ...}, canonical JSON

A listing is a memory that anybody may write and nobody needs. A manifest is taken from it only where the
remote's own list of files tells the same stamp (size and ETag or time) as when it was read; all
others are read one by one. What is pulled is described by its manifest itself, never by a listing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cache.errors import AmbiguousKeyError, InvalidInputError, KeyMissingError, RemoteError
from cache.keys import canonical_json, sha256_of
from cache.layout import memory_bound
from cache.listed import Listed
from cache.manifest import Manifest, from_bytes, from_plain, to_plain
from cache.remote import Remote

UNLISTED = 64
"""So many manifests beyond the newest listing make a pusher write another."""
_THREADS = 16
_BYTES_EACH = 1 << 16
"""Of a manifest in a listing, on the average; a listing that is larger is passed over."""
_MEMORY_FACTOR = 16
_LARGEST_MEMORY = 1 << 30
_NAME = re.compile(r"([0-9]{1,9})-[0-9a-f]{64}\.json\Z")


def list_remote(remote: Remote) -> list[Manifest]:
    """Return the manifests of a remote, sorted by coordinates; unsound ones are told and left out."""
    found = []
    for file, result in _read_all(remote, remote.manifests()):
        if isinstance(result, Manifest):
            found.append(result)
        else:
            remote.notify(f"{remote.url}: manifest {file.name[:12]}... is left out: {result}")
    return sorted(found, key=lambda m: (sorted((n, str(v)) for n, v in m.coordinates.items()), m.key))


def find_remote(remote: Remote, /, **coordinates: str | float) -> list[Manifest]:
    """Return the manifests that have all these coordinates."""
    return [
        manifest
        for manifest in list_remote(remote)
        if all(manifest.coordinates.get(name) == value for name, value in coordinates.items())
    ]


def find_one_remote(remote: Remote, /, **coordinates: str | float) -> Manifest:
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


def read_manifest(remote: Remote, key: str, *, size: int | None = None) -> Manifest:
    """Fetch and check one manifest.

    Raises
    ------
    KeyMissingError
        The remote has none under this key.
    InvalidInputError
        It is not what a manifest is.
    """
    name = f"manifests/{key}.json"
    raw = remote.read_small(name, size=size)
    try:
        return from_bytes(raw, key)
    except InvalidInputError as error:
        raise InvalidInputError(f"{remote.url}: {name} {error}: push it again") from error


def write_listing(remote: Remote) -> bool:
    """Write a listing where the newest one lacks many manifests; True where one was written.

    A remote that does not let itself be written or listed is left as it is: those who list read
    the manifests themselves.
    """
    with contextlib.suppress(RemoteError, KeyMissingError, InvalidInputError):
        files = remote.manifests()
        before = _listings(remote)
        if len(files) - max(before.values(), default=0) < UNLISTED or not all(f.stamp for f in files):
            return False
        stamps = {file.name: file.stamp for file in files}
        content = {
            result.key: [stamps[file.name], to_plain(result)]
            for file, result in _read_all(remote, files)
            if isinstance(result, Manifest)
        }
        name = f"listings/{len(content)}-{sha256_of(content)}.json"
        remote.create(name, canonical_json(content))
        for old in before:
            remote.remove(f"listings/{old}")
        return True
    return False


def _read_all(remote: Remote, files: Iterable[Listed]) -> Iterator[tuple[Listed, Manifest | str]]:
    """Yield each manifest, or the reason why it is none; from the newest listing where that is the same."""
    files = list(files)
    listed = _newest(remote, len(files)) if len(files) >= UNLISTED else {}

    def read(file: Listed) -> Manifest | str:
        key = file.name.removesuffix(".json")
        if not file.regular:
            return "it is no file: remove it, then push the entry again"
        try:
            stamp, plain = listed.get(key, ("", None))
            if stamp and stamp == file.stamp:
                with contextlib.suppress(ValueError, TypeError):
                    return from_plain(plain, key)
            return read_manifest(remote, key, size=file.size)
        except (InvalidInputError, KeyMissingError) as error:
            return str(error)

    if remote.mounted:  # no waiting there that threads could share
        yield from ((file, read(file)) for file in files)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip(files, pool.map(read, files, chunksize=1), strict=True)


def _listings(remote: Remote) -> dict[str, int]:
    """Return the names of the listings with the number of manifests in each."""
    names = {file.name: _NAME.match(file.name) for file in remote.listing("listings")}
    return {name: int(match[1]) for name, match in names.items() if match}


def _newest(remote: Remote, count: int) -> dict[str, tuple[str, Any]]:
    """Return stamp and manifest by key of the largest listing; nothing where none can be read.

    So many manifests say how large it may be, and what memory it may take: anybody may have written it.
    """
    most = (count + UNLISTED) * _BYTES_EACH
    with contextlib.suppress(KeyMissingError, ValueError, TypeError, AttributeError, RecursionError):
        names = _listings(remote)
        if names:
            name = max(names, key=lambda name: (names[name], name))
            raw = remote.read_small(f"listings/{name}", most=most)
            if memory_bound(raw) > min(_MEMORY_FACTOR * most, _LARGEST_MEMORY):
                return {}
            plain = json.loads(raw)
            return {key: (str(stamp), manifest) for key, (stamp, manifest) in plain.items()}
    return {}
