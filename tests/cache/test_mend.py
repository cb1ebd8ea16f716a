"""What is damaged, on a remote or on the way, is refused, told, mended, and never fills the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheWriteError, DamagedEntryError, InvalidInputError, RemoteError, Store
from cache.hand_over import export_entry, import_entry
from cache.remote import Remote
from cache.share import list_remote, pull, push
from tests.cache import forge
from tests.cache.conftest import Make, batch, metadata
from tests.cache.servers import Server, backend, data_path


def flip(server: Server, key: Any, at: int = -1) -> None:
    """Change one bit of what a remote holds; the size stays."""
    fs, path = data_path(server, key)
    raw = bytearray(fs.cat_file(path))
    raw[at] ^= 1
    fs.pipe_file(path, bytes(raw))


def rewrite(server: Server, key: Any, **changes: Any) -> None:
    """Make a manifest tell something else."""
    fs, root = backend(server)
    name = f"{root}/manifests/{key.digest}.json"
    fs.pipe_file(name, json.dumps({**json.loads(fs.cat_file(name)), **changes}).encode())


def stored_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_a_pull_refuses_the_command_it_names_mends(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store
) -> None:
    entry = make()
    push(store, remote, [entry.key])
    flip(server, entry.key)
    with pytest.raises(DamagedEntryError) as caught:
        pull(colleague, remote, [entry.key])
    command = f"penultimate cache push {server.url} --key {entry.key.digest[:12]} --verify"
    assert command in str(caught.value)
    assert str(caught.value).startswith(f"{server.url}/data/{entry.key.digest}/")
    assert push(store, remote, [entry.key], dry_run=True, verify=True)[0].status == "would mend"
    assert push(store, remote, [entry.key], verify=True)[0].status == "mended"
    assert push(store, remote, [entry.key], verify=True)[0].status == "present"
    assert pull(colleague, remote, [entry.key])[0].status == "received"
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()


def test_a_mounted_folder_is_always_read_again(store: Store, make: Make, tmp_path: Path) -> None:
    entry, place = make(), Server(str(tmp_path / "remote"))
    push(store, Remote(place.url), [entry.key])
    flip(place, entry.key, at=entry.index.arrays["features"].offset)
    assert push(store, Remote(place.url), [entry.key])[0].status == "mended"
    assert push(store, Remote(place.url), [entry.key])[0].status == "present"


def test_a_shortened_object_is_mended_without_being_asked(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store
) -> None:
    entry = make()
    push(store, remote, [entry.key])
    fs, path = data_path(server, entry.key)
    fs.pipe_file(path, fs.cat_file(path)[:-1])
    with pytest.raises(DamagedEntryError, match=r"bytes, its manifest says .* --verify"):
        pull(colleague, remote, [entry.key])
    assert push(store, remote, [entry.key])[0].status == "mended"
    assert pull(colleague, remote, [entry.key])[0].status == "received"


def test_an_upload_that_arrives_short_is_no_success(
    store: Store, make: Make, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make()
    put = remote._place.put

    def lossy(source: Path, name: str, progress: Any, *, replace: bool) -> None:
        half = source.with_name("half")
        half.write_bytes(source.read_bytes()[:1000])
        put(half, name, progress, replace=replace)

    monkeypatch.setattr(remote._place, "put", lossy)
    with pytest.raises(RemoteError, match="the remote holds 1000 bytes where"):
        push(store, remote, [entry.key])
    assert remote.keys() == []
    monkeypatch.undo()
    assert push(store, remote, [entry.key])[0].status == "mended"


LIES: dict[str, dict[str, Any]] = {
    "size": {"nbytes": 12_345},
    "rows": {"rows": 21},
    "dimension": {"dimension": 6},
    "dtype": {"dtype": "<f2"},
    "classes": {"classes": 4},
    "kind": {"multi_label": True},
    "split": {"coordinates": {"backbone": "resnet50", "dataset": "pets", "split": "test"}},
    "values": {"content_digest": "0" * 64},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_found_out_and_mended(
    store: Store, make: Make, tmp_path: Path, colleague: Store, lie: str
) -> None:
    entry, place = make(), Server(str(tmp_path / "remote"))
    remote = Remote(place.url)
    push(store, remote, [entry.key])
    rewrite(place, entry.key, **LIES[lie])
    with pytest.raises(DamagedEntryError, match=r"announced|its manifest says"):
        pull(colleague, remote, [entry.key])
    assert entry.key not in colleague
    assert push(store, remote, [entry.key])[0].status == "mended"
    assert pull(colleague, remote, [entry.key])[0].status == "received"


def test_a_manifest_with_another_keys_bytes_is_refused(
    store: Store, make: Make, tmp_path: Path, colleague: Store
) -> None:
    one, other = make(split="train"), make(split="test")
    place = Server(str(tmp_path / "remote"))
    remote = Remote(place.url)
    push(store, remote, [one.key, other.key])
    data_path(place, one.key)[0].pipe_file(data_path(place, one.key)[1], other.path.read_bytes())
    rewrite(place, one.key, nbytes=other.path.stat().st_size, content_digest=other.content_digest)
    with pytest.raises(DamagedEntryError, match="holds the key"):
        pull(colleague, remote, [one.key])
    assert colleague.list() == []


def test_what_a_remote_tells_of_an_entry_cannot_harm_a_terminal(
    store: Store, make: Make, tmp_path: Path, colleague: Store
) -> None:
    entry, place = make(), Server(str(tmp_path / "remote"))
    lines: list[str] = []
    remote = Remote(place.url, notify=lines.append)
    push(store, remote, [entry.key])
    rewrite(place, entry.key, provenance={"host": "\x1b[2Jevil\n"})
    pull(colleague, remote, [entry.key])
    told = json.dumps(dict(colleague.read(entry.key).metadata["provenance"]))
    assert "\x1b" not in told
    rewrite(place, entry.key, coordinates={"split": "\x1b[2J"})
    assert list_remote(remote) == []
    assert "\x1b" not in lines[-1]
    rewrite(place, entry.key, provenance={"log": "x" * (1 << 20)})
    with pytest.raises(InvalidInputError, match="larger than"):
        pull(store, remote, [entry.key])


def test_one_refused_pull_a_key_is_kept(store: Store, make: Make, tmp_path: Path, colleague: Store) -> None:
    entry, place = make(), Server(str(tmp_path / "remote"))
    push(store, Remote(place.url), [entry.key])
    flip(place, entry.key)
    sizes = set()
    for _ in range(100):
        with pytest.raises(DamagedEntryError) as caught:
            pull(colleague, Remote(place.url), [entry.key])
        sizes.add(stored_bytes(colleague.root))
        assert caught.value.moved_to == colleague.root / "quarantine" / f"{entry.key.digest}.pulled.h5"
    assert len(sizes) == 1


@pytest.mark.parametrize("damage", ["last byte", "index", "cut", "a web page"])
def test_a_refused_import_leaves_nothing(store: Store, make: Make, tmp_path: Path, damage: str) -> None:
    handed = export_entry(store, make().key, tmp_path / "for-you.h5")
    raw = bytearray(handed.read_bytes())
    handed.chmod(0o644)
    raw[{"last byte": -1, "index": 200}.get(damage, -1)] ^= 1
    handed.write_bytes({"cut": raw[:-5000], "a web page": b"<html>sign in</html>"}.get(damage, raw))
    before, other = handed.read_bytes(), Store(tmp_path / "other", private=tmp_path / "private")
    for _ in range(3):
        with pytest.raises(DamagedEntryError) as caught:
            import_entry(other, handed)
        assert str(caught.value).startswith(str(handed))
        assert "ask whoever gave it to export it again" in str(caught.value)
        assert caught.value.moved_to is None
    assert handed.read_bytes() == before
    files = [path for path in other.root.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= {"locks"}


@pytest.mark.parametrize("at", ["head", "tail"])
def test_a_damaged_beginning_of_a_pull_heals(
    store: Store, make: Make, remote: Remote, colleague: Store, at: str
) -> None:
    """What an interrupted pull had left was damaged on the disk: one further pull is enough."""
    entry = make(rows=200, dimension=500)
    push(store, remote, [entry.key])
    (manifest,) = list_remote(remote)
    left = bytearray(entry.path.read_bytes()[:200_000])
    left[3 if at == "head" else -3] ^= 1
    (colleague.root / "incoming").mkdir(parents=True)
    (colleague.root / "incoming" / f"{manifest.key}.{manifest.sha256}.part").write_bytes(left)
    lines: list[str] = []
    colleague.notify = lines.append
    assert pull(colleague, remote, [entry.key])[0].status == "received"
    assert "fetching all of it again" in lines[0]
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()
    assert list((colleague.root / "incoming").iterdir()) == []
    assert not (colleague.root / "quarantine").exists()


def test_what_is_left_of_a_file_since_replaced_goes(
    store: Store, make: Make, tmp_path: Path, colleague: Store
) -> None:
    entry = make()
    push(store, Remote(str(tmp_path / "remote")), [entry.key])
    (colleague.root / "incoming").mkdir(parents=True)
    (colleague.root / "incoming" / f"{entry.key.digest}.{'0' * 64}.part").write_bytes(b"old")
    pull(colleague, Remote(str(tmp_path / "remote")), [entry.key])
    assert list((colleague.root / "incoming").iterdir()) == []


def test_a_download_that_cannot_fit_is_not_begun(
    store: Store, make: Make, remote: Remote, colleague: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make()
    push(store, remote, [entry.key])
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("cache.remote.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(CacheWriteError, match="1000 free: make room"):
        pull(colleague, remote, [entry.key])


# Same key, other bytes


def other_values(store: Store, key: Any, factor: float) -> Any:
    """Publish a key with slightly other features, as another machine might."""
    rows = batch(0, 20, 5, 3, False, np.float32)
    with store.writer(key, metadata(20)) as writer:
        writer.append(**{**rows, "features": rows["features"] * np.float32(factor)})
        return writer.publish()


def arrive_by_pull(there: Store, here: Store, key: Any, folder: Path) -> str:
    remote = Remote(str(folder / "remote"))
    push(there, remote, [key])
    return pull(here, remote, [key])[0].status


def arrive_by_import(there: Store, here: Store, key: Any, folder: Path) -> str:
    return import_entry(here, export_entry(there, key, folder / "for-you.h5")).status


@pytest.mark.parametrize("arrive", [arrive_by_pull, arrive_by_import], ids=["pull", "import"])
def test_the_first_values_of_a_key_stay_here(
    make: Make, store: Store, colleague: Store, tmp_path: Path, arrive: Callable[..., str]
) -> None:
    """The rule: the first bytes of a key stay, the others are told with how much they differ."""
    theirs = make()
    mine = other_values(colleague, theirs.key, 1.001)
    lines: list[str] = []
    colleague.notify = lines.append
    before = mine.path.read_bytes()
    assert arrive(store, colleague, theirs.key, tmp_path) == "different"
    assert colleague.read(theirs.key).path.read_bytes() == before
    (line,) = lines
    assert "arrived with other values (features differ by up to 0.001" in line
    assert line.endswith("the first ones stay")
    assert list((colleague.root / "incoming").iterdir()) == []


def test_the_first_values_of_a_key_stay_on_a_remote(
    store: Store, make: Make, server: Server, colleague: Store, tmp_path: Path
) -> None:
    first = make()
    other_values(colleague, first.key, 1.001)
    lines: list[str] = []
    remote = Remote(server.url, server.options, lines.append)
    push(store, remote, [first.key])
    for verify in (False, True):
        assert push(colleague, remote, [first.key], verify=verify)[0].status == "different"
        assert "the first ones stay: `penultimate cache pull` says by how much" in lines.pop()
    third = Store(tmp_path / "third", private=tmp_path / "third-private")
    pull(third, remote, [first.key])
    assert third.read(first.key).content_digest == first.content_digest


def test_first_values_that_are_lost_make_room(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store, tmp_path: Path
) -> None:
    """A damaged file counts as missing: it is not first any more."""
    first = make()
    other = other_values(colleague, first.key, 1.001)
    push(store, remote, [first.key])
    flip(server, first.key)
    assert push(colleague, remote, [first.key], verify=True)[0].status == "mended"
    third = Store(tmp_path / "third", private=tmp_path / "third-private")
    pull(third, remote, [first.key])
    assert third.read(first.key).content_digest == other.content_digest


def test_other_bytes_of_the_same_values_are_present(store: Store, make: Make, tmp_path: Path) -> None:
    """Another version of the HDF5 library may write another file around the same values."""
    entry, place = make(), Server(str(tmp_path / "remote"))
    remote = Remote(place.url)
    push(store, remote, [entry.key])
    raw = entry.path.read_bytes()
    index, block_bytes = forge.index_of(raw)
    whole = raw + bytes(8)
    twin = forge.with_index(raw, forge.fitting(index, whole, block_bytes), whole[block_bytes:])
    entry.path.chmod(0o644)
    entry.path.write_bytes(twin)
    for verify in (False, True):
        assert push(store, remote, [entry.key], verify=verify)[0].status == "present"
    flip(place, entry.key)
    assert push(store, remote, [entry.key])[0].status == "mended"


@pytest.mark.parametrize("kind", ["fifo", "link to a fifo"])
def test_a_push_puts_the_bytes_where_something_else_stands(
    store: Store, make: Make, colleague: Store, tmp_path: Path, kind: str
) -> None:
    """Nothing is read from a FIFO: it would be waited for, for ever."""
    entry = make()
    remote = Remote(str(tmp_path / "remote"))
    push(store, remote, [entry.key])
    data = next((tmp_path / "remote" / "data" / entry.key.digest).glob("*.h5"))
    data.unlink()
    pipe = data if kind == "fifo" else tmp_path / "pipe"
    os.mkfifo(pipe)
    if kind != "fifo":
        data.symlink_to(pipe)
    with pytest.raises(DamagedEntryError, match="has 0 bytes, its manifest says"):
        pull(colleague, remote, [entry.key])
    assert push(store, remote, [entry.key])[0].status == "mended"
    assert pull(colleague, remote, [entry.key])[0].status == "received"
