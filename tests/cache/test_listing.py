"""Lists of many entries, here and on a remote: fast, and never other than what a slow list says."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, Store
from cache.catalogue import EntryInfo
from cache.head import PIECES, read_head
from cache.keys import canonical_json
from cache.listing import list_remote, write_listing
from cache.manifest import to_plain
from cache.remote import Remote
from cache.share import Manifest, push
from tests.cache import forge
from tests.cache.conftest import Make, key_of
from tests.cache.servers import Server, backend


def manifests(count: int) -> list[Manifest]:
    """Return manifests of entries that nobody has."""
    return [
        Manifest(
            key=CacheKey.from_ingredients({"number": number}).digest,
            sha256="0" * 64,
            nbytes=1000,
            content_digest="1" * 64,
            coordinates={"backbone": f"net{number}", "dataset": "pets", "split": "train"},
            rows=20,
            dimension=5,
            dtype="<f4",
            classes=3,
            multi_label=False,
            provenance={"host": "here"},
        )
        for number in range(count)
    ]


def put(remote: Remote, many: list[Manifest]) -> None:
    for manifest in many:
        remote.create(manifest.name, canonical_json(to_plain(manifest)), replace=True)


@pytest.fixture
def counted(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are read from the remote."""
    names: list[str] = []
    read = remote._place.read

    def counting(name: str, start: int, stop: int) -> bytes:
        names.append(name)
        return read(name, start, stop)

    monkeypatch.setattr(remote._place, "read", counting)
    return names


def test_a_listing_spares_reading_every_manifest(remote: Remote, counted: list[str]) -> None:
    many = manifests(70)
    put(remote, many)
    before = list_remote(remote)
    assert write_listing(remote)
    counted.clear()
    assert list_remote(remote) == before
    assert len(counted) == 1
    assert counted[0].startswith("listings/70-")
    assert not write_listing(remote)


def test_what_a_listing_does_not_know_is_read(
    server: Server, remote: Remote, counted: list[str], store: Store, make: Make
) -> None:
    """Manifests that came later, that changed and that went."""
    many = manifests(70)
    put(remote, many)
    write_listing(remote)
    entry = make()
    push(store, remote, [entry.key])
    fs, root = backend(server)
    changed = {**to_plain(many[0]), "rows": 2000, "provenance": {}}
    fs.pipe_file(f"{root}/{many[0].name}", canonical_json(changed))
    remote.remove(many[1].name)
    counted.clear()
    found = {manifest.key: manifest for manifest in list_remote(remote)}
    assert set(found) == {entry.key.digest, *(m.key for m in many)} - {many[1].key}
    assert found[many[0].key].rows == 2000
    assert len(counted) == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[" * 100_000, b"[]", b'{"a": 1}', b'{"a": [1, 2, 3]}', "lie"],
    ids=lambda content: str(content)[:12],
)
def test_a_listing_that_is_none_is_passed_over(tmp_path: Path, content: Any) -> None:
    remote = Remote(str(tmp_path))
    many = manifests(70)
    put(remote, many)
    write_listing(remote)
    (path,) = (tmp_path / "listings").iterdir()
    if content == "lie":
        plain = json.loads(path.read_bytes())
        content = json.dumps({key: [stamp, {"rows": 7}] for key, (stamp, _) in plain.items()}).encode()
    path.write_bytes(content)
    assert {manifest.key for manifest in list_remote(remote)} == {manifest.key for manifest in many}


def test_a_listing_that_takes_much_memory_is_not_decoded(tmp_path: Path) -> None:
    remote, many = Remote(str(tmp_path)), manifests(70)
    put(remote, many)
    bomb = tmp_path / "listings" / f"99-{'0' * 64}.json"
    bomb.parent.mkdir()
    for content in (b'{"a":[' + b"{}," * 1_000_000 + b"1]}", b" " * 30_000_000):
        bomb.write_bytes(content)
        tracemalloc.start()
        try:
            assert len(list_remote(remote)) == 70
            assert tracemalloc.get_traced_memory()[1] < 25 << 20
        finally:
            tracemalloc.stop()


def test_pushing_many_writes_a_listing_now_and_then(
    store: Store, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.listing.UNLISTED", 3)
    remote = Remote(str(tmp_path / "remote"))
    for number in range(7):
        push(store, remote, [make(key=key_of(number=number)).key])
    (name,) = (path.name for path in (tmp_path / "remote" / "listings").iterdir())
    assert name.startswith("6-")
    assert len(list_remote(remote)) == 7


@pytest.mark.slow
def test_ten_thousand_on_a_folder_are_listed_in_five_seconds(tmp_path: Path) -> None:
    """Of this process: a machine that is busy elsewhere makes nothing slow."""
    remote = Remote(str(tmp_path))
    (tmp_path / "manifests").mkdir()
    for manifest in manifests(10_000):
        (tmp_path / manifest.name).write_bytes(canonical_json(to_plain(manifest)))
    start = time.process_time()
    assert len(list_remote(remote)) == 10_000
    assert time.process_time() - start < 5.0


# Here


def test_a_head_says_what_the_whole_index_says(store: Store, make: Make) -> None:
    for choice in ({}, {"multi_label": True}, {"dtype": np.float16}, {"rows": 800, "classes": 40}):
        entry = make(key=key_of(**{k: str(v) for k, v in choice.items()}), **choice)
        status, summary = read_head(entry.path, entry.key.digest) or (None, {})
        info = store.info(entry.key)
        assert status is not None
        assert {name: getattr(info, name) for name in summary} == summary
        (listed,) = (one for one in store.list() if one.key == entry.key.digest)
        assert isinstance(listed, EntryInfo)
        assert dict(listed.ingredient_digests) == dict(info.ingredient_digests)
        assert listed == info


@pytest.mark.parametrize("size", [{"rows": 3000}, {"classes": 2000}], ids=str)
def test_a_head_is_read_whatever_stands_behind_it(store: Store, make: Make, size: dict[str, int]) -> None:
    """An index larger than what is read is listed by its head."""
    entry = make(**size)
    assert len(canonical_json(forge.index_of(entry.path.read_bytes())[0])) > PIECES[0]
    assert read_head(entry.path, entry.key.digest) is not None


@pytest.mark.parametrize("place", range(0, 4000, 97))
def test_a_bit_that_flipped_is_never_listed(raw: bytes, tmp_path: Path, place: int) -> None:
    store = Store(tmp_path / "cache", private=tmp_path / "private")
    flipped = bytearray(raw)
    flipped[place] ^= 4
    inside = place < 72 + len(canonical_json(forge.index_of(raw)[0]))
    forge.place(bytes(flipped), store.path_of(key_of()))
    assert len(store.list()) == (0 if inside else 1) or flipped == raw
