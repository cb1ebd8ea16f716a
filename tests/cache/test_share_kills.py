"""A push or a pull that is killed shows nothing half, and the next one completes it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache import Entry, Store
from cache.remote import Remote
from cache.share import list_remote, pull, push
from tests.cache import share_program
from tests.cache.conftest import Make
from tests.cache.servers import Server

PROGRAM = Path(share_program.__file__)
NEVER = 2.0


def started(
    direction: str, server: Server, store: Store, entry: Entry, share: float
) -> subprocess.Popen[str]:
    """Start a transfer in a process of its own, up to its first byte."""
    command = [
        sys.executable, str(PROGRAM), direction, server.url, json.dumps(server.options), str(store.root),
        entry.key.digest, str(share),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "moving\n"
    return process


def killed(process: subprocess.Popen[str], after: float | None = None) -> None:
    """Kill a transfer where it says that it is there, or after a while."""
    assert process.stdout is not None
    if after is None:
        assert process.stdout.readline() == "there\n"
    else:
        time.sleep(after)
    process.kill()
    process.wait()
    process.stdout.close()


def complete_or_absent(remote: Remote, entry: Entry, folder: Path) -> None:
    """What a remote lists can be pulled, every byte of it."""
    for manifest in list_remote(remote):
        store = Store(folder, private=folder / "private")
        pull(store, remote, [manifest.key])
        assert store.read(manifest.key).path.read_bytes() == entry.path.read_bytes()


def test_a_killed_push_is_completed(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store
) -> None:
    """Where an object is sent in one request, the kill comes between the data and the manifest."""
    entry = make(rows=200, dimension=500)
    killed(started("push", server, store, entry, 0.4))
    assert list_remote(remote) == []
    assert push(store, remote, [entry.key])[0].status == "sent"
    assert pull(colleague, remote, [entry.key])[0].status == "received"
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()


def test_a_killed_pull_goes_on_where_it_was(
    store: Store, make: Make, server: Server, remote: Remote, colleague: Store
) -> None:
    entry = make(rows=200, dimension=500)
    push(store, remote, [entry.key])
    killed(started("pull", server, colleague, entry, 0.4))
    assert entry.key not in colleague
    (part,) = (colleague.root / "incoming").glob("*.part")
    there = part.stat().st_size
    assert 0 < there < entry.path.stat().st_size
    seen: list[int] = []
    pull(colleague, remote, [entry.key], progress=lambda _key, done, _total: seen.append(done))
    assert seen[0] > there
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("direction", ["push", "pull"])
def test_killed_at_any_moment(
    store: Store,
    make: Make,
    server: Server,
    remote: Remote,
    colleague: Store,
    tmp_path: Path,
    direction: str,
    kills: int,
) -> None:
    entry = make(rows=200, dimension=500)
    if direction == "pull":
        push(store, remote, [entry.key])
    mover = store if direction == "push" else colleague
    chance = random.Random(7)
    for number in range(kills):
        killed(started(direction, server, mover, entry, NEVER), after=chance.uniform(0.0, 0.15))
        complete_or_absent(remote, entry, tmp_path / f"looks-{number}")
    push(store, remote, [entry.key])
    pull(colleague, remote, [entry.key])
    assert colleague.read(entry.key).path.read_bytes() == entry.path.read_bytes()
    assert len(list_remote(remote)) == 1
