"""Ends, faults and full disks at every step of writing: whole and right, or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cache import CacheError, CacheKey, Store

PROGRAM = Path(__file__).with_name("crash_program.py")
KEYS_PROGRAM = Path(__file__).with_name("keys_program.py")
FAULTS = Path(__file__).with_name("faults.c")
FAULTS_PROGRAM = "tests.cache.faults_program"
WORKS = ("write", "move")
REPOSITORY = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets file operations fail."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("operations are made to fail by a library in front of libc: that wants Linux and cc")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, FAULTS, "-ldl"], check=True
    )
    return library


def answers(
    faults: Path, work: str, folder: Path, kind: str, numbers: Iterable[int]
) -> Iterator[dict[str, Any]]:
    """Do a work with a fault at each of these operations, and again without."""
    folder.mkdir(exist_ok=True)
    code = str(getattr(errno, kind, kind))
    done = subprocess.run(
        [sys.executable, "-m", FAULTS_PROGRAM, work, str(folder), code, *map(str, numbers)],
        env={**os.environ, "LD_PRELOAD": str(faults), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return map(json.loads, done.stdout.splitlines())


@dataclass(frozen=True)
class Undisturbed:
    """What comes of a work without a fault."""

    said: str
    seen: list[str]
    operations: list[str]
    """Names of its file operations, those of libhdf5 in a child as well."""


@pytest.fixture(scope="module")
def undisturbed(
    faults: Path, reference: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Undisturbed]:
    found = {}
    for work in WORKS:
        folder = tmp_path_factory.mktemp("undisturbed")
        (answer,) = answers(faults, work, folder, "exit", [0])
        assert answer["first"][0] == 0
        assert answer["seen"] == [reference]
        names = (folder / "exit-0.log").read_text(encoding="ascii").split()
        found[work] = Undisturbed(answer["first"][1], answer["seen"], names)
    assert len(found["write"].operations) > 150
    assert {"fsync", "link", "mkdir", "open64", "pwrite64", "renameat2", "unlink", "write"} <= set(
        found["write"].operations
    )
    return found


def check_faults(
    faults: Path, work: str, folder: Path, kind: str, numbers: Iterable[int], expected: Undisturbed
) -> Counter[int]:
    """After a fault: nothing partial, a typed line or success, and a rerun gives the same bytes."""
    statuses: Counter[int] = Counter()
    for answer in answers(faults, work, folder, kind, numbers):
        status, said = answer["first"]
        assert status in ({9, 3, 0} if kind == "exit" else {3, 0}), answer
        assert set(answer["seen"]) <= set(expected.seen), answer
        assert status == 9 or said.count("\n") == 1, answer
        assert answer["again"] == [0, expected.said], answer
        assert answer["left"] == expected.seen, answer
        statuses[status] += 1
    return statuses


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("kind", ["exit", "ENOSPC"])
def test_a_fault_costs_nothing_but_time(
    tmp_path: Path, faults: Path, undisturbed: dict[str, Undisturbed], work: str, kind: str
) -> None:
    whole = undisturbed[work]
    chosen = [round(share * len(whole.operations)) for share in (0.15, 0.4, 0.6, 0.8, 0.95)]
    check_faults(faults, work, tmp_path, kind, chosen, whole)


def can_end(operation: str, kind: str) -> bool:
    """Whether an operation can end so: reading and closing fail with EIO alone, and leave nothing to be resumed."""
    reads, writes = {"read", "pread", "pread64"}, {"write", "pwrite", "pwrite64"}
    if kind == "short":
        return operation in reads | writes
    return kind == "EIO" or operation not in {"close", *reads}


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_every_operation(
    tmp_path: Path, faults: Path, undisturbed: dict[str, Undisturbed], work: str, kind: str
) -> None:
    """Every operation once, and each in every way it can fail."""
    whole = undisturbed[work]
    chosen = [k for k, name in enumerate(whole.operations, start=1) if can_end(name, kind)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(check_faults, faults, work, tmp_path / str(half), kind, chosen[half::2], whole)
            for half in (0, 1)
        ]
        statuses = sum((job.result() for job in jobs), Counter())
    assert statuses.total() == len(chosen)
    assert statuses[{"exit": 9, "short": 0}.get(kind, 3)] > 10


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
