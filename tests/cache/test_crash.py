"""Ends, faults and full disks at every step of writing: whole and right, or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache import CacheError, CacheKey, Store

PROGRAM = Path(__file__).with_name("crash_program.py")
KEYS_PROGRAM = Path(__file__).with_name("keys_program.py")
FAULTS = Path(__file__).with_name("faults")
KEY = CacheKey.from_ingredients({"backbone": "resnet50", "recipe_version": 1})
ROWS = 24
KINDS = ("exit", "ENOSPC", "EIO", "EINTR", "short")


def command(root: Path, rows: int = ROWS, pause: float = 0.0, backbone: str = "resnet50") -> list[str]:
    return [sys.executable, str(PROGRAM), str(root), str(rows), str(pause), backbone]


def run(root: Path, rows: int = ROWS, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, rows), capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of the entry of an undisturbed run."""
    done = run(tmp_path_factory.mktemp("reference"))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def visible(root: Path) -> list[str]:
    """Return the SHA-256 of every published file."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "entries").glob("??/*.h5")]


def faulty(root: Path, at: int, kind: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run the program with one fault; return how it ended and how many operations it did."""
    counter = root.with_name(f"{root.name}.count")
    done = run(
        root,
        PYTHONPATH=str(FAULTS),
        FAULT_ROOT=str(root),
        FAULT_AT=str(at),
        FAULT_KIND=kind,
        FAULT_COUNTER=str(counter),
    )
    return done, counter.stat().st_size


def check_fault(root: Path, at: int, kind: str, reference: str) -> None:
    """After a fault: nothing partial, a typed line or success, and a rerun gives the same bytes."""
    done, _ = faulty(root, at, kind)
    expected = {9, 3, 0} if kind == "exit" else {3, 0}
    assert done.returncode in expected, (at, kind, done.stderr[-1500:])
    assert set(visible(root)) <= {reference}, (at, kind)
    if done.returncode == 3:
        assert done.stdout.count("\n") == 1
    again = run(root)
    assert (again.returncode, again.stdout.strip()) == (0, reference), (at, kind, again.stdout, again.stderr)
    assert visible(root) == [reference]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> int:
    """File operations of an undisturbed run."""
    done, count = faulty(tmp_path_factory.mktemp("count") / "cache", 0, "exit")
    assert done.returncode == 0, done.stderr
    assert count > 30
    return count


@pytest.mark.parametrize("share", [0.3, 0.75, 0.95])
def test_a_fault_costs_nothing_but_time(
    tmp_path: Path, operations: int, reference: str, share: float
) -> None:
    at = round(share * operations)
    for kind in ("exit", "ENOSPC"):
        check_fault(tmp_path / kind, at, kind, reference)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_every_operation(tmp_path: Path, operations: int, reference: str, kind: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(check_fault, tmp_path / str(at), at, kind, reference)
            for at in range(1, operations + 1)
        ]
        for job in jobs:
            job.result()


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_moments(tmp_path: Path, kills: int) -> None:
    """Kill, go on, kill, ... The bytes are those of a run that nobody disturbed."""
    dice = random.Random(kills)
    rows, done_kills, number = 160, 0, 0
    start = time.monotonic()
    expected = subprocess.run(
        command(tmp_path / "whole", rows, 0.02), capture_output=True, text=True, check=True
    ).stdout.strip()
    whole = time.monotonic() - start
    while done_kills < kills:
        root = tmp_path / f"cache{number}"
        number += 1
        while True:
            with subprocess.Popen(command(root, rows, 0.02), stdout=subprocess.PIPE, text=True) as process:
                try:
                    out, _ = process.communicate(timeout=whole * dice.uniform(0.2, 1.5))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    done_kills += 1
                    assert set(visible(root)) <= {expected}
                    continue
            assert (process.returncode, out.strip()) == (0, expected)
            break
        assert visible(root) == [expected]


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a file system of a given size."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "sizes", [range(60, 400, 150), pytest.param(range(20, 420, 20), marks=pytest.mark.slow)]
)
def test_a_full_disk(tmp_path: Path, reference: str, sizes: range) -> None:
    ends = set()
    for kilobytes in sizes:
        with small_disk(tmp_path / str(kilobytes), kilobytes) as disk:
            done = run(disk / "cache")
            ends.add(done.returncode)
            assert done.returncode in {0, 3}, done.stderr[-1500:]
            assert done.stdout.count("\n") == 1
            assert set(visible(disk / "cache")) <= {reference}
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            again = run(disk / "cache")
            assert (again.returncode, again.stdout.strip()) == (0, reference), again.stdout
    assert ends == {0, 3}


@pytest.mark.parametrize(("processes", "keys"), [(4, 3), pytest.param(8, 20, marks=pytest.mark.slow)])
def test_every_key_is_computed_once(tmp_path: Path, processes: int, keys: int) -> None:
    """Processes that want the same keys in another order each: one computes, all read the same bytes."""
    log = tmp_path / "log"

    def one(seed: int) -> str:
        arguments = [str(tmp_path / "cache"), str(keys), str(log), str(seed)]
        done = subprocess.run(
            [sys.executable, str(KEYS_PROGRAM), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    with ThreadPoolExecutor(processes) as pool:
        read = list(pool.map(one, range(processes)))
    assert read == [read[0]] * processes
    assert len(read[0].split()) == keys
    assert sorted(map(int, log.read_text().split())) == list(range(keys))


def test_the_lock_of_a_dead_holder_is_taken_over(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    lines: list[str] = []
    store = Store(root, private=tmp_path / "private", notify=lines.append)
    metadata = {
        "coordinates": {"backbone": "resnet50", "split": "train"},
        "class_names": ["a", "b", "c"],
        "multi_label": False,
        "expected_rows": 800,
    }
    with subprocess.Popen(command(root, 800, 0.1), stdout=subprocess.DEVNULL) as holder:
        log = store.staging_folder(KEY) / "batches.log"
        while not log.exists() or log.stat().st_size < 5000:
            time.sleep(0.05)
        with pytest.raises(CacheError, match=f"held by process {holder.pid} of .* rows"):
            store.writer(KEY, metadata, timeout=0.5).__enter__()
        holder.kill()
        holder.wait()
    start = time.monotonic()
    with store.writer(KEY, metadata) as writer:
        assert time.monotonic() - start < 5.0
        assert writer.next_row >= 8
    assert f"held by process {holder.pid}" in lines[0]
