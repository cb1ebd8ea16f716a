"""What the tests that end trainings are made of: the grid on disk, and what a moment of it looks like."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.numpy import load_file

from tests.pipeline.kills import Forker, Machine

Phase = Literal["starting", "training", "between"]
ROOT = Path(__file__).parent.parent.parent
PROGRAM = Path(__file__).with_name("training_program.py")


@dataclass(frozen=True)
class Moment:
    """What lies in a study's output at one moment."""

    curves: dict[str, tuple[int, int]]
    """State of every curve by the name of its job's folder: time of change, lines."""
    checkpoints: dict[str, int]
    """Steps done in every checkpoint, by the name of its job's folder."""
    records: frozenset[str]
    """Files of the ledger."""
    answered: int
    """How often a command said how to go on."""

    def since(self, before: Moment) -> Phase:
        """Say what an attempt was doing when it was ended, from what it changed."""
        if any(name in self.checkpoints or lines for name, lines in self.open_since(before).items()):
            return "training"
        return "between" if self.records - before.records else "starting"

    def open_since(self, before: Moment) -> dict[str, int]:
        """Lines of the curves that were written meanwhile and whose jobs are not done."""
        return {
            name: state[1]
            for name, state in self.curves.items()
            if before.curves.get(name) != state and not self.is_done(name)
        }

    def is_done(self, folder: str) -> bool:
        """Whether the job of a folder has its record."""
        return any(Path(name).stem.rpartition(".a")[0] == folder.rpartition(".")[0] for name in self.records)


def moment(machine: Machine) -> Moment:
    """Look at a study's output without touching it."""
    # By name: a folder that is being made has another one for a moment, and is gone when it is looked into.
    regimes = [machine.folder / "out" / "training" / name for name in ("fine_tune", "from_scratch")]
    folders = [path for regime in regimes for path in regime.glob("*") if path.is_dir()]
    curves, checkpoints = {}, {}
    for folder in folders:
        with suppress(FileNotFoundError):
            curve = folder / "curve.jsonl"
            curves[folder.name] = (curve.stat().st_mtime_ns, curve.read_bytes().count(b"\n"))
            checkpoints[folder.name] = steps_in(folder / "checkpoint.safetensors")
    records = (machine.folder / "out" / "results").glob("*/*.json")
    answered = machine.said().count("run the same command again") if machine.log.exists() else 0
    return Moment(curves, checkpoints, frozenset(path.name for path in records), answered)


def steps_in(checkpoint: Path) -> int:
    """Read how many steps a checkpoint holds, from the bytes alone."""
    with checkpoint.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(json.loads(header["__metadata__"]["state"])["progress"]["step"])


def records_of(machine: Machine) -> dict[str, dict[str, Any]]:
    """Read every record of the ledger, by the stem of its file."""
    paths = sorted((machine.folder / "out" / "results").glob("*/*.json"))
    return {path.stem: json.loads(path.read_bytes()) for path in paths}


def outcome_of(machine: Machine) -> dict[str, Any]:
    """Return all that must be the same after interruptions: everything but times and provenance.

    The predictions for every example and the trained weights are in it by their SHA-256.
    """
    found: dict[str, Any] = {}
    for record in records_of(machine).values():
        assert record["status"] == "complete", f"{record['job']}: {record['reason']}"
        del record["provenance"], record["digest"], record["result"]["seconds"]
        for point in record["result"]["curve"]:
            del point["images_per_second"]
        assert record["job"] not in found, f"{record['job']} has two records"
        found[record["job"]] = record
    for path in sorted((machine.folder / "out" / "training").glob("*/*/weights.safetensors")):
        tensors = sorted(load_file(path).items())  # whose order in the file is any
        digest = hashlib.sha256(b"".join(name.encode() + array.tobytes() for name, array in tensors))
        found[path.parent.name] = digest.hexdigest()
    return found


@contextmanager
def forking(environment: dict[str, str], cores: set[int]) -> Iterator[Forker]:
    """Commands in processes that have torch already, on some cores of this machine."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
    finally:
        os.sched_setaffinity(0, before)
    with process:
        yield Forker(process)
        assert process.stdin is not None
        process.stdin.close()


def worker_of(pid: int) -> int | None:
    """Return a process that trains for a command just now: a child that runs Python and has an open curve."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            fields = (folder / "stat").read_text(encoding="ascii", errors="replace")
            if int(fields.rpartition(")")[2].split()[1]) == pid and any(
                link.readlink().name == "curve.jsonl" for link in (folder / "fd").iterdir()
            ):
                return int(folder.name)
    return None


def send(pid: int, number: signal.Signals, victim: Literal["group", "command", "worker"]) -> bool:
    """Send a signal; False where there was nobody left to get it."""
    with suppress(ProcessLookupError):
        if victim == "group":
            os.killpg(pid, number)
            return True
        target = pid if victim == "command" else worker_of(pid)
        if target is not None:
            os.kill(target, number)
            return True
    return False
