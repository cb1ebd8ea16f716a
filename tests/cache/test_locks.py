"""One writer a key: by a lock of the system, by a lease where there is none, and rightly without either."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cache import CacheKey, CacheWriteError, LockTimeoutError
from cache.lease import Lease
from cache.locks import KeyLock
from cache.system import machine, private_folder, process_is_alive
from tests.cache.user_program import key_of

PROGRAM = Path(__file__).with_name("user_program.py")
KEYS_PROGRAM = Path(__file__).with_name("keys_program.py")
CRASH_PROGRAM = Path(__file__).with_name("crash_program.py")
REFUSALS = Path(__file__).with_name("refusals")
DIGEST = "ab" * 32
NO_LOCKS = ["ENOSYS", "ENOLCK", "EOPNOTSUPP"]


def environment(flock: str) -> dict[str, str]:
    """For a process on a file system whose flock behaves like this."""
    return {**os.environ, "PYTHONPATH": str(REFUSALS), "FLOCK": flock, "OMP_NUM_THREADS": "1"}


@pytest.fixture(params=NO_LOCKS)
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system whose flock gives this error."""
    number = getattr(errno, request.param)

    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return str(request.param)


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


def test_without_flock_a_lease_is_used_and_told_once(tmp_path: Path, no_flock: str) -> None:
    lines: list[str] = []
    locks = tmp_path / "locks"
    with KeyLock(locks, DIGEST).held(lines.append):
        assert len(lines) == 1
        assert os.strerror(getattr(errno, no_flock)) in lines[0]
        assert "a lease stands in" in lines[0]
        with (
            pytest.raises(LockTimeoutError, match=f"held by process {os.getpid()} of .* waited 0.3 s"),
            KeyLock(locks, DIGEST).held(lines.append, 0.3),
        ):
            pass
        with KeyLock(locks, "cd" * 32).held(lines.append, 0.0):
            pass
    with KeyLock(locks, DIGEST).held(lines.append, 0.0):
        pass
    assert sum("a lease stands in" in line for line in lines) == 1


def test_another_error_of_flock_is_told_not_worked_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(CacheWriteError, match=r"\.lock: locking failed: Input/output error"),
        KeyLock(tmp_path / "locks", DIGEST).held(print),
    ):
        pass
    assert not list((tmp_path / "locks").glob("*.lease"))


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


@pytest.mark.parametrize("flock", ["", "ENOSYS"], ids=["flock", "lease"])
def test_a_waiter_takes_over_from_a_killed_holder(tmp_path: Path, flock: str) -> None:
    """Within five seconds, whether or not anybody has collected the dead process yet."""
    command = [sys.executable, str(PROGRAM), str(tmp_path / "cache"), "hold:1"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment(flock)}
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(subprocess.Popen(command, **options))
        stack.callback(holder.kill)
        read_until(holder, "held")
        waiter = stack.enter_context(subprocess.Popen(command, **options))
        stack.callback(waiter.kill)
        assert f"held by process {holder.pid} of" in read_until(waiter, "waiting for key")
        start = time.monotonic()
        holder.send_signal(signal.SIGKILL)
        read_until(waiter, "held")
        assert time.monotonic() - start < 5.0


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """Return the first line that a process says and that begins like this."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(beginning))


def test_children_of_a_killed_holder_do_not_keep_its_lock(tmp_path: Path) -> None:
    """As workers do that were forked while it was held."""
    code = (
        "import os, pathlib, sys, time\n"
        "from cache.locks import KeyLock\n"
        "with KeyLock(pathlib.Path(sys.argv[1]), 'ab' * 32).held(print):\n"
        "    child = os.fork()\n"
        "    if child == 0: time.sleep(60); os._exit(0)\n"
        "    print(child, flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "locks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.kill()
    try:
        assert process_is_alive(child)
        with KeyLock(tmp_path / "locks", DIGEST).held(print, 5.0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_that_nobody_collected_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_is_alive(process.pid)
        process.kill()
        wait_for(lambda: not process_is_alive(process.pid))
        assert process.poll() is not None


def test_with_leases_every_key_is_computed_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [
        subprocess.Popen(
            [sys.executable, str(KEYS_PROGRAM), str(tmp_path / "cache"), "3", str(log), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment("ENOLCK"),
        )
        for seed in range(3)
    ]
    read = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert read == [read[0]] * 3
    assert sorted(map(int, log.read_text().split())) == [0, 1, 2]


@pytest.mark.parametrize("delay", [0.0, pytest.param(0.7, marks=pytest.mark.slow)])
def test_two_writers_without_any_lock_end_in_one_right_entry(tmp_path: Path, delay: float) -> None:
    """As on a mount that locks for its own machine alone: time is lost, the entry is what it has to be."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"

    def start(root: Path) -> subprocess.Popen[str]:
        command = [sys.executable, str(CRASH_PROGRAM), str(root), "160", "0.02"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment("blind"))

    expected = start(whole).communicate(timeout=60)[0].strip()
    first = start(torn)
    time.sleep(delay)
    second = start(torn)
    ends = [process.communicate(timeout=60)[0].strip() for process in (first, second)]
    assert expected in ends
    for process, said in zip((first, second), ends, strict=True):
        assert (process.returncode, said) == (0, expected) or (process.returncode == 3 and "\n" not in said)
    again = start(torn)
    assert again.communicate(timeout=60)[0].strip() == expected
    (entry,) = (torn / "entries").glob("??/*.h5")
    assert hashlib.sha256(entry.read_bytes()).hexdigest() == expected
    assert entry.stem == CacheKey.from_ingredients({"backbone": "resnet50", "recipe_version": 1}).digest


def test_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    entered = threading.Event()
    with (
        KeyLock(tmp_path / "locks", key_of(1).digest).held(print),
        pytest.raises(LockTimeoutError),
        KeyLock(tmp_path / "locks", key_of(1).digest).held(print, 0.2),
    ):
        entered.set()
    assert not entered.is_set()


@pytest.mark.parametrize("kind", ["fifo", "device", "long", "deep"])
def test_a_note_that_is_none_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    lock = KeyLock(tmp_path, "ab" * 32)
    note = tmp_path / f"{'ab' * 32}.holder"
    if kind == "fifo":
        os.mkfifo(note)
    elif kind == "device":
        note.symlink_to("/dev/zero")
    else:
        note.write_bytes(b" " * 100_000 if kind == "long" else b"[" * 4000)
    assert lock.holder() == "a process that left no note"


def test_a_user_without_a_home_remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user is a mere number
    folder = private_folder()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        folder.mkdir(parents=True)
