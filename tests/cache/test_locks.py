"""One writer a key: by a lock of the system, by a lease where there is none, and rightly without either."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cache import CacheKey, CacheWriteError, LockTimeoutError
from cache.locks import KeyLock
from cache.system import private_folder, process_is_alive
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
