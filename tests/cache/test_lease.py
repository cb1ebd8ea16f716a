"""Where there is no flock: a lease is had by one at a time, and given on when its holder is gone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cache.lease import Lease
from cache.locks import KeyLock
from cache.system import machine, process_is_alive

DIGEST = "ab" * 32


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that end soon."""
    monkeypatch.setattr("cache.lease.LEASE_SECONDS", 0.6)
    monkeypatch.setattr("cache.lease.RENEW_SECONDS", 0.1)


@pytest.fixture
def lease_of(tmp_path: Path) -> Iterator[Callable[[], Lease]]:
    """Makes leases on one thing; those that are still held at the end are given back."""
    made: list[Lease] = []

    def make() -> Lease:
        made.append(Lease(tmp_path / "cache" / "locks" / "x.lease", tmp_path / "cache"))
        return made[-1]

    yield make
    for lease in made:
        if lease.held:
            lease.release()


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "locks" / "x.lease").iterdir())


def leave(tmp_path: Path, **holder: Any) -> Path:
    """Leave a lease as a holder does who is no more."""
    folder = tmp_path / "cache" / "locks" / "x.lease"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "00000041"
    path.write_bytes(json.dumps(holder).encode())
    return path


def dead() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_lease_is_had_by_one_and_given_on(lease_of: Callable[[], Lease], tmp_path: Path) -> None:
    first, second = lease_of(), lease_of()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()
    assert [path.name for path in files(tmp_path)] == ["00000003"]


def test_a_dead_holder_on_this_machine_is_followed_at_once(
    lease_of: Callable[[], Lease], tmp_path: Path
) -> None:
    left = leave(tmp_path, machine=machine(), pid=dead())
    assert lease_of().acquire()
    assert not left.exists()


@pytest.mark.parametrize("holder", ["elsewhere", "alive", "negative", "text", "nameless"])
@pytest.mark.usefixtures("quick")
def test_a_holder_that_cannot_be_asked_is_followed_when_it_does_not_renew(
    lease_of: Callable[[], Lease], tmp_path: Path, holder: str
) -> None:
    holders: dict[str, dict[str, Any]] = {
        "elsewhere": {"machine": "another", "pid": dead()},
        "alive": {"machine": machine(), "pid": os.getpid()},
        "negative": {"machine": machine(), "pid": -1},
        "text": {"machine": machine(), "pid": "1"},
        "nameless": {},
    }
    left = leave(tmp_path, **holders[holder])
    os.utime(left, (2**33, 2**33))  # a clock that is centuries ahead means nothing
    lease = lease_of()
    start = time.monotonic()
    wait_for(lease.acquire)
    assert time.monotonic() - start >= 0.6


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"released":1}'],
    ids=["empty", "torn", "list", "deep", "no text", "no answer"],
)
@pytest.mark.usefixtures("quick")
def test_a_lease_that_nobody_can_read_ends_like_any(
    lease_of: Callable[[], Lease], tmp_path: Path, raw: bytes
) -> None:
    leave(tmp_path).write_bytes(raw)
    lease = lease_of()
    assert not lease.acquire()
    wait_for(lease.acquire)


@pytest.mark.usefixtures("quick")
def test_a_holder_that_is_busy_for_long_keeps_its_lease(lease_of: Callable[[], Lease]) -> None:
    """As in a forward pass: nothing is said for longer than the lease lasts, and it is renewed all the same."""
    holder, waiter = lease_of(), lease_of()
    assert holder.acquire()
    end = time.monotonic() + 1.3
    while time.monotonic() < end:
        assert not waiter.acquire()
        time.sleep(0.05)
    assert not holder.lost


@pytest.mark.usefixtures("quick")
def test_a_holder_that_was_held_up_is_told_that_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a suspended machine or a mount that hangs: the time stamp stands still, others go on."""
    refused = OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(refused))
    monkeypatch.setattr("os.utime", lambda *_: (_ for _ in ()).throw(OSError(errno.ESTALE, "Stale")))
    lines: list[str] = []
    holder, follower = KeyLock(tmp_path / "locks", DIGEST), KeyLock(tmp_path / "locks", DIGEST)
    with holder.held(lines.append):
        with follower.held(print, 10.0):
            time.sleep(0.4)
            holder.note("8 of 16 rows")
            holder.note("16 of 16 rows")
            assert sum("somebody else began the same work" in line for line in lines) == 1
        with KeyLock(tmp_path / "locks", DIGEST).held(print, 0.0):
            pass
    with KeyLock(tmp_path / "locks", DIGEST).held(print, 0.0):
        pass


@pytest.mark.parametrize("rounds", [20, pytest.param(400, marks=pytest.mark.slow)])
def test_of_many_who_find_a_dead_holder_one_follows(tmp_path: Path, rounds: int) -> None:
    pid = dead()
    with ThreadPoolExecutor(8) as pool:
        for number in range(rounds):
            place = tmp_path / str(number)
            leave(place, machine=machine(), pid=pid)
            leases = [Lease(place / "cache" / "locks" / "x.lease", place / "cache") for _ in range(8)]
            assert sum(pool.map(Lease.acquire, leases)) == 1
            next(lease for lease in leases if lease.held).release()


def test_nobody_is_let_in_beside_the_holder(tmp_path: Path) -> None:
    """Six take turns as fast as they can, each with its own view of who was last, until 40 were had."""
    inside, turns, wrong = [0], [0], [0]
    patience = time.monotonic() + 60.0

    def work(_: int) -> None:
        lease = Lease(tmp_path / "cache" / "locks" / "x.lease", tmp_path / "cache")
        while turns[0] < 40 and time.monotonic() < patience:
            if lease.acquire():
                inside[0] += 1
                wrong[0] += inside[0] != 1
                time.sleep(0.0005)
                wrong[0] += inside[0] != 1
                inside[0] -= 1
                turns[0] += 1
                lease.release()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert wrong == [0]
    assert turns[0] >= 40


def test_who_slept_between_looking_and_creating_steps_back(
    lease_of: Callable[[], Lease], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the number it is about to create was given, given back, and removed: it is free again."""
    left = leave(tmp_path, machine=machine(), pid=dead())
    others = [lease_of(), lease_of()]
    real_open = os.open

    def slow_open(path: Any, flags: int, *mode: int) -> int:
        if str(path).endswith("00000042") and flags & os.O_EXCL:
            monkeypatch.setattr(os, "open", real_open)
            assert others[0].acquire()
            others[0].release()
            assert others[1].acquire()
            assert [path.name for path in files(tmp_path)] == ["00000043"]
        return real_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", slow_open)
    assert not lease_of().acquire()
    assert not left.exists()
    assert others[1].held
    assert [path.name for path in files(tmp_path)] == ["00000043"]


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_lease_that_cannot_be_written_is_not_held(
    lease_of: Callable[[], Lease], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    number = getattr(errno, error)

    def fsync(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=os.strerror(number)):
            lease_of().acquire()
    assert lease_of().acquire()


def test_a_process_that_nobody_collected_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_is_alive(process.pid)
        process.kill()
        wait_for(lambda: not process_is_alive(process.pid))
        assert process.poll() is not None
