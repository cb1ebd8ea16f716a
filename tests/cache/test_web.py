"""Pulling from a web server: one that heeds ranges, one that does not, one whose line is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import DamagedEntryError, Entry, InvalidInputError, KeyMissingError, RemoteError, Store
from cache.remote import Remote
from cache.share import list_remote, pull, push
from tests.cache.conftest import Make, key_of
from tests.cache.servers import WebServer, web_server

pytest.importorskip("aiohttp")


@pytest.fixture
def entry(store: Store, make: Make, tmp_path: Path, short_pauses: None) -> Entry:
    made = make(rows=200, dimension=500)
    push(store, Remote(str(tmp_path / "remote")), [made.key])
    return made


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def web(request: pytest.FixtureRequest, entry: Entry, tmp_path: Path) -> Iterator[WebServer]:
    with web_server(tmp_path / "remote", ranges=request.param) as server:
        yield server


def test_entries_are_pulled_over_http(web: WebServer, entry: Entry, colleague: Store) -> None:
    remote = Remote(web.url)
    assert [m.key for m in list_remote(remote)] == [entry.key.digest]
    assert pull(colleague, remote, [entry.key])[0].status == "received"
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()
    with pytest.raises(KeyMissingError, match="no manifests/"):
        pull(colleague, remote, [key_of(split="absent")])


def test_a_line_that_is_cut_is_taken_up_again(web: WebServer, entry: Entry, colleague: Store) -> None:
    web.dies_after += [100_000, 50_000]
    lines: list[str] = []
    assert pull(colleague, Remote(web.url, notify=lines.append), [entry.key])[0].status == "received"
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()
    assert ["trying again" in line for line in lines] == [True, True]


def test_a_server_that_keeps_dying_leaves_what_came(web: WebServer, entry: Entry, colleague: Store) -> None:
    web.dies_after += [400_000] + [0] * 8
    with pytest.raises(RemoteError, match="downloading"):
        pull(colleague, Remote(web.url), [entry.key])
    (part,) = (colleague.root / "incoming").iterdir()
    there = part.stat().st_size
    assert 0 < there <= 400_000
    web.dies_after.clear()
    web.sent.clear()
    assert pull(colleague, Remote(web.url), [entry.key])[0].status == "received"
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()


def test_only_what_is_missing_is_asked_for(entry: Entry, colleague: Store, tmp_path: Path) -> None:
    size = entry.path.stat().st_size
    with web_server(tmp_path / "remote", ranges=True) as web:
        (manifest,) = list_remote(Remote(web.url))
        (colleague.root / "incoming").mkdir(parents=True)
        part = colleague.root / "incoming" / f"{manifest.key}.{manifest.sha256}.part"
        part.write_bytes(entry.path.read_bytes()[:300_000])
        web.sent.clear()
        assert pull(colleague, Remote(web.url), [entry.key])[0].status == "received"
        assert max(web.sent) == size - 300_000


def test_a_changed_file_on_a_web_server_is_refused(
    web: WebServer, entry: Entry, colleague: Store, tmp_path: Path
) -> None:
    (path,) = (tmp_path / "remote" / "data").rglob("*.h5")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedEntryError, match="penultimate cache push"):
        pull(colleague, Remote(web.url), [entry.key])


def test_nothing_is_pushed_to_a_web_server(web: WebServer, store: Store, make: Make) -> None:
    lines: list[str] = []
    with pytest.raises(InvalidInputError, match="http is for pulling only: push to a folder"):
        push(store, Remote(web.url, notify=lines.append), [make(split="test").key])
    assert lines == []
