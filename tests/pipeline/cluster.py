"""A real dask scheduler and workers on the loopback, started and stopped by the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 60.0


@dataclass
class Cluster:
    """The processes; each is a group of its own, so that its helpers end with it."""

    address: str
    folder: Path
    environment: dict[str, str]
    scheduler: subprocess.Popen[bytes]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def end_scheduler(self) -> None:
        """Kill the scheduler; that it is gone already is no matter."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.scheduler.pid, signal.SIGKILL)

    def add_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread; its nanny starts it again when it dies."""
        number = len(self.processes)
        local = self.folder / f"worker {number}"
        words = [self.address, "--nthreads", "1", "--local-directory", str(local), "--no-dashboard", *options]
        process = _start("dask_worker", words, self.folder / f"worker {number}.log", self.environment)
        self.processes.append(process)
        return process


@contextlib.contextmanager
def dask_cluster(
    folder: Path, *, workers: int, options: tuple[str, ...] = (), allowed_failures: int = 1
) -> Iterator[Cluster]:
    """Run a scheduler and workers; everything ends with the block.

    ``allowed_failures`` is dask's, which is 3 by default: a worker's start takes seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = folder / "scheduler.json"
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)}
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where)]
    scheduler = _start("dask_scheduler", words, folder / "scheduler.log", environment)
    cluster = None
    try:
        cluster = Cluster(_address(where, scheduler), folder, environment, scheduler)
        for _ in range(workers):
            cluster.add_worker(*options)
        yield cluster
    finally:
        for process in [*(cluster.processes if cluster else []), scheduler]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(module: str, words: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start one of dask's programs."""
    code = f"from distributed.cli.{module} import main; main()"
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )


def _address(where: Path, scheduler: subprocess.Popen[bytes]) -> str:
    """Wait for the file in which the scheduler says where it is."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert scheduler.poll() is None, "the scheduler ended"
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads(where.read_text())["address"])
        time.sleep(0.1)
    raise AssertionError("the scheduler did not start")
