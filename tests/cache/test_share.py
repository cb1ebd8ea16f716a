"""One conformance suite for every kind of remote: folder, S3 and SFTP servers that are real."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import (
    AmbiguousKeyError,
    CacheKey,
    CacheReadError,
    DamagedEntryError,
    Entry,
    InvalidInputError,
    KeyMissingError,
    RemoteError,
    Store,
)
from cache.attempts import shown
from cache.hand_over import export_entry
from cache.remote import Remote
from cache.share import find_one_remote, find_remote, list_remote, pull, push
from tests.cache.conftest import Make, batch, metadata
from tests.cache.servers import Server, backend, data_path


def publish_other(store: Store, key: CacheKey, factor: float) -> Entry:
    """Publish a key with slightly other features."""
    with store.writer(key, metadata(20)) as writer:
        rows = batch(0, 20, 5, 3, False, np.float32)
        writer.append(**{**rows, "features": rows["features"] * np.float32(factor)})
        return writer.publish()


def test_what_is_pushed_can_be_pulled(store: Store, make: Make, remote: Remote, colleague: Store) -> None:
    entry = make()
    seen: list[tuple[str, int, int]] = []
    (sent,) = push(store, remote, [entry.key], progress=lambda *call: seen.append(call))
    assert (sent.status, sent.nbytes) == ("sent", entry.path.stat().st_size)
    (received,) = pull(colleague, remote, [entry.key.digest], progress=lambda *call: seen.append(call))
    assert received.status == "received"
    assert seen[-1] == (entry.key.digest, sent.nbytes, sent.nbytes)
    theirs = colleague.read(entry.key)
    assert theirs.path.read_bytes() == entry.path.read_bytes()
    assert theirs.metadata["provenance"] == {"host": "here", "seconds": 1.5}
    assert list((colleague.root / "incoming").iterdir()) == []


def test_nothing_is_sent_twice(store: Store, make: Make, remote: Remote, colleague: Store) -> None:
    entry = make()
    assert [t.status for t in push(store, remote, [entry.key])] == ["sent"]
    assert [t.status for t in push(store, remote, [entry.key])] == ["present"]
    assert [t.status for t in pull(colleague, remote, [entry.key])] == ["received"]
    assert [t.status for t in pull(colleague, remote, [entry.key])] == ["present"]


def test_a_dry_run_changes_nothing(store: Store, make: Make, remote: Remote, colleague: Store) -> None:
    entry = make()
    assert [t.status for t in push(store, remote, [entry.key], dry_run=True)] == ["would send"]
    assert remote.keys() == []
    push(store, remote, [entry.key])
    assert [t.status for t in pull(colleague, remote, [entry.key], dry_run=True)] == ["would receive"]
    assert entry.key not in colleague


def test_a_remote_is_listed_and_searched(store: Store, make: Make, remote: Remote) -> None:
    entries = [make(split=split) for split in ("train", "test")]
    assert list_remote(remote) == []
    push(store, remote, [entry.key for entry in entries])
    assert [m.coordinates["split"] for m in list_remote(remote)] == ["test", "train"]
    (found,) = find_remote(remote, split="test")
    assert (found.key, found.rows, found.dimension) == (entries[1].key.digest, 20, 5)
    with pytest.raises(AmbiguousKeyError, match="2 entries with backbone=resnet50"):
        find_one_remote(remote, backbone="resnet50")
    with pytest.raises(KeyMissingError, match="no entry with split=none"):
        find_one_remote(remote, split="none")


def test_pushing_at_the_same_time_gives_one_entry(
    store: Store, make: Make, server: Server, colleague: Store
) -> None:
    entry = make()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(push, store, Remote(server.url, server.options), [entry.key]) for _ in range(4)]
        statuses = {job.result()[0].status for job in jobs}
    assert statuses <= {"sent", "present"}
    pull(colleague, Remote(server.url, server.options), [entry.key])
    fs, root = backend(server)
    names = [path.rsplit("/", 1)[-1] for path in fs.find(f"{root}/data")]
    assert len(names) == 1
    assert not names[0].endswith(".part")


def test_the_first_of_two_values_stays(
    store: Store, make: Make, remote: Remote, colleague: Store, tmp_path: Path
) -> None:
    first = make()
    other = publish_other(colleague, first.key, 1.001)
    assert push(store, remote, [first.key])[0].status == "sent"
    assert push(colleague, remote, [first.key])[0].status == "different"
    (pulled,) = pull(colleague, remote, [first.key])
    assert pulled.status == "different"
    assert pulled.deviation == pytest.approx(0.001, rel=0.01)
    assert colleague.read(first.key).content_digest == other.content_digest
    third = Store(tmp_path / "third", private=tmp_path / "third-private")
    pull(third, remote, [first.key])
    assert third.read(first.key).content_digest == first.content_digest


class CutError(Exception):
    """The line was cut."""


def cut_after(share: float) -> Any:
    """Return a progress callback that interrupts a transfer when so much of it is done."""

    def progress(_key: str, done: int, total: int) -> None:
        if done >= share * total:
            raise CutError

    return progress


def test_an_interrupted_push_shows_nothing_and_is_completed(
    store: Store,
    make: Make,
    server: Server,
    remote: Remote,
    colleague: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = make(rows=700, dimension=1280)
    with monkeypatch.context() as patch:
        patch.setattr("cache.attempts.ATTEMPTS", 1)
        patch.setattr("cache.filesystems.PIECE_BYTES", 1 << 16)
        with pytest.raises((CutError, RemoteError)):
            push(store, remote, [entry.key], progress=cut_after(0.3))
    assert remote.keys() == []
    with pytest.raises(KeyMissingError):
        pull(colleague, remote, [entry.key])
    assert push(store, remote, [entry.key])[0].status == "sent"
    pull(colleague, remote, [entry.key])
    assert colleague.read(entry.key).content_digest == entry.content_digest


def test_an_interrupted_pull_goes_on_where_it_was(
    store: Store, make: Make, remote: Remote, colleague: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make(rows=200, dimension=500)
    push(store, remote, [entry.key])
    monkeypatch.setattr("cache.filesystems.PIECE_BYTES", 1 << 16)
    with pytest.raises(CutError):
        pull(colleague, remote, [entry.key], progress=cut_after(0.5))
    assert entry.key not in colleague
    (part,) = (colleague.root / "incoming").iterdir()
    there = part.stat().st_size
    assert 0 < there < entry.path.stat().st_size
    seen: list[int] = []
    pull(colleague, remote, [entry.key], progress=lambda _key, done, _total: seen.append(done))
    assert seen[0] > there
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()


def test_a_hiccup_is_tried_again(
    store: Store, make: Make, server: Server, colleague: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make()
    lines: list[str] = []
    remote = Remote(server.url, server.options, lines.append)
    push(store, remote, [entry.key])
    read = remote._place._range
    failures = iter([OSError("connection reset"), TimeoutError("timed out")])

    def flaky(path: str, start: int, stop: int) -> bytes:
        for error in failures:
            raise error
        return read(path, start, stop)

    monkeypatch.setattr(remote._place, "_range", flaky)
    assert pull(colleague, remote, [entry.key])[0].status == "received"
    assert ["connection reset" in lines[0], "timed out" in lines[1]] == [True, True]


def test_a_vanished_object_is_missing(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store
) -> None:
    entry = make()
    push(store, remote, [entry.key])
    fs, path = data_path(server, entry.key)
    fs.rm_file(path)
    with pytest.raises(KeyMissingError, match="vanished: push it again"):
        pull(colleague, remote, [entry.key])
    assert push(store, remote, [entry.key])[0].status == "sent"
    assert pull(colleague, remote, [entry.key])[0].status == "received"


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_changed_object_is_never_used(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store, where: str
) -> None:
    entry = make()
    push(store, remote, [entry.key])
    fs, path = data_path(server, entry.key)
    raw = bytearray(fs.cat_file(path))
    raw[{"first": 0, "middle": entry.index.arrays["features"].offset, "last": -1}[where]] ^= 1
    fs.pipe_file(path, bytes(raw))
    with pytest.raises(DamagedEntryError) as caught:
        pull(colleague, remote, [entry.key])
    assert caught.value.moved_to is not None
    assert entry.key not in colleague
    assert list((colleague.root / "incoming").iterdir()) == []


def test_other_values_than_announced_are_refused(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store
) -> None:
    entry = make()
    push(store, remote, [entry.key])
    fs, root = backend(server)
    name = f"{root}/manifests/{entry.key.digest}.json"
    plain = json.loads(fs.cat_file(name))
    fs.pipe_file(name, json.dumps({**plain, "content_digest": "0" * 64}).encode())
    with pytest.raises(DamagedEntryError, match="other values than was announced"):
        pull(colleague, remote, [entry.key])


@pytest.mark.parametrize(
    "change",
    [
        b"<html>sign in</html>",
        b"[" * 100_000,
        {"key": "0" * 64},
        {"nbytes": -1},
        {"nbytes": 1e9},
        {"sha256": "../../../etc/passwd"},
        {"coordinates": {"a": "b\n"}},
        {"manifest_version": 2},
        {"more": 1},
    ],
    ids=lambda change: str(change)[:20],
)
def test_a_manifest_that_is_none_is_left_out(store: Store, make: Make, tmp_path: Path, change: Any) -> None:
    entry = make()
    lines: list[str] = []
    remote = Remote(str(tmp_path / "remote"), notify=lines.append)
    push(store, remote, [entry.key])
    path = tmp_path / "remote" / "manifests" / f"{entry.key.digest}.json"
    text = (
        change
        if isinstance(change, bytes)
        else json.dumps({**json.loads(path.read_bytes()), **change}).encode()
    )
    path.write_bytes(text)
    assert list_remote(remote) == []
    assert "is left out" in lines[0]
    assert "\n" not in lines[0]
    with pytest.raises(InvalidInputError, match="is no manifest"):
        pull(store, remote, [entry.key])
    assert push(store, remote, [entry.key])[0].status == "mended"
    assert len(list_remote(remote)) == 1


def test_wrong_credentials_are_told(store: Store, make: Make, server: Server) -> None:
    if server.wrong_credentials is None:
        pytest.skip("nobody asks for credentials there")
    entry = make()
    with pytest.raises(RemoteError) as caught:
        push(store, Remote(server.url, server.wrong_credentials), [entry.key])
    assert "check the URL, the network and your credentials" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Remote(server.url, server.options).keys() == []


def test_a_remote_out_of_reach_is_told(store: Store, make: Make, server: Server) -> None:
    if server.unreachable is None:
        pytest.skip("a folder is always in reach")
    entry = make()
    url, options = server.unreachable
    with pytest.raises(RemoteError) as caught:
        push(store, Remote(url, options), [entry.key])
    assert "\n" not in str(caught.value)


def test_a_folder_without_permission_is_told(store: Store, make: Make, tmp_path: Path) -> None:
    entry = make()
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(RemoteError, match="failed"):
        push(store, Remote(str(tmp_path / "file" / "remote")), [entry.key])


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nosuch"):
        Remote("nosuch://host/path")


def test_a_password_is_never_shown() -> None:
    assert shown("sftp://me:secret@host/path") == "sftp://me:***@host/path"
    assert shown("s3://bucket/prefix") == "s3://bucket/prefix"


def test_only_sound_entries_leave(store: Store, make: Make, tmp_path: Path) -> None:
    entry = make()
    entry.path.chmod(0o644)
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    with pytest.raises((DamagedEntryError, CacheReadError)):
        push(store, Remote(str(tmp_path / "remote")), [entry.key])
    assert not (tmp_path / "remote").exists()


@pytest.mark.parametrize("url", ["http://[::1", "http://me:secret@[::1/x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="Invalid IPv6 URL: correct the URL") as caught:
        Remote(url)
    assert "secret" not in str(caught.value)


def test_coordinates_may_have_any_name(store: Store, make: Make, tmp_path: Path) -> None:
    entry, remote = make(self="a", remote="b"), Remote(str(tmp_path / "remote"))
    push(store, remote, [entry.key])
    asked = {"self": "a", "remote": "b"}
    assert store.find_one(**asked).key == find_one_remote(remote, **asked).key == entry.key.digest


@pytest.mark.parametrize("side", ['{"a":NaN}', '{"a":"\\ud800"}', "[1]", "[" * 100_000])
def test_provenance_that_cannot_be_passed_on_stands_in_nobodys_way(
    store: Store, make: Make, tmp_path: Path, side: str
) -> None:
    entry = make()
    entry.path.with_suffix(".json").write_text(side)
    assert store.read(entry.key).metadata["provenance"] == {}
    assert push(store, Remote(str(tmp_path / "remote")), [entry.key])[0].status == "sent"
    assert export_entry(store, entry.key, tmp_path / "out.h5").with_suffix(".json").read_bytes() == b"{}"


def test_provenance_that_makes_a_manifest_too_large_is_refused_where_it_is_pushed(
    store: Store, make: Make, tmp_path: Path
) -> None:
    entry, remote = make(), Remote(str(tmp_path / "remote"))
    entry.path.with_suffix(".json").write_text(json.dumps({"log": "x" * ((1 << 20) - 100)}))
    with pytest.raises(InvalidInputError, match=r"json: with it the manifest has \d+ bytes.* shorten it"):
        push(store, remote, [entry.key])
    assert not (tmp_path / "remote").exists()
