"""The books of a large grid: every point is trained once, whoever is killed meanwhile, and never again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import write_image_set
from tests.pipeline.kills import Forker, Machine
from tests.pipeline.trainings import ROOT, forking, records_of, send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched in /proc")
NETWORK = """
import torch
from torch import nn


def tiny():
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
STUDY = """
[study]
name = "books"
output = "out"
[[backbone]]
name = "python:books_network:tiny"
size = 16
[[dataset]]
name = "colours"
source = "csv:colours/split.csv"
[probe]
enabled = false
[fine_tune]
steps = 2
batch_size = 4
device = "cpu"
learning_rates = {rates}
weight_decays = {decays}
"""
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """Commands on one core in processes that have torch already."""
    networks = tmp_path_factory.mktemp("networks")
    (networks / "books_network.py").write_text(NETWORK, encoding="utf-8")
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state")),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{networks}",
    }
    with forking(environment, {min(os.sched_getaffinity(0))}) as commands:
        yield commands


def machine_in(folder: Path, rates: int, decays: int) -> Machine:
    """Make a folder in which the study can be run."""
    folder.mkdir()
    write_image_set(folder / "colours")
    machine = Machine(folder, folder / "store", folder / "log")
    write_study(machine, rates, decays)
    return machine


def write_study(machine: Machine, rates: int, decays: int) -> None:
    """Write the study with so many points."""
    text = STUDY.format(
        rates=[float(f"{1e-3 * 1.3**i:.6g}") for i in range(rates)],
        decays=[float(f"{1e-6 * 2**i:.6g}") for i in range(decays)],
    )
    (machine.folder / "study.toml").write_text(text, encoding="utf-8")


def states(forker: Forker, machine: Machine) -> dict[str, str]:
    """Ask the plan for the state of every training."""
    machine.log.write_text("", encoding="utf-8")
    assert forker.run(["plan", str(machine.folder / "study.toml"), "--json"], machine) == 0, machine.said()
    jobs: list[dict[str, Any]] = json.loads(machine.said())["jobs"]
    return {job["name"]: job["state"] for job in jobs if job["stage"] == "fine-tune"}


def fine_tune(forker: Forker, machine: Machine) -> int:
    """Run the trainings, one after the other."""
    return forker.run(["fine-tune", str(machine.folder / "study.toml"), "--jobs", "1"], machine)


def ledger(machine: Machine) -> dict[str, int]:
    """Names of the records and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (machine.folder / "out/results").glob("*/*.json")}


def kill_often(forker: Forker, machine: Machine, kills: int, points: int) -> int:
    """End the command after so many more results, over and over; return how often that hit."""
    dice = random.Random(points)
    hits = 0
    for _ in range(kills):
        wanted = len(ledger(machine)) + dice.randint(0, max(1, points // kills))
        pid = forker.start(["fine-tune", str(machine.folder / "study.toml"), "--jobs", "1"], machine)
        patience = time.monotonic() + PATIENCE_SECONDS
        while len(ledger(machine)) < min(wanted, points):
            assert time.monotonic() < patience, machine.said()
            time.sleep(0.002)
        time.sleep(dice.uniform(0.0, 0.1))
        send(pid, signal.SIGKILL, "group")
        hits += forker.wait(pid) == -signal.SIGKILL
    return hits


@pytest.mark.parametrize(
    ("rates", "decays", "kills"), [(4, 3, 3), pytest.param(20, 10, 25, marks=pytest.mark.slow)]
)
def test_every_point_is_trained_once(
    forker: Forker,
    tmp_path: Path,
    rates: int,
    decays: int,
    kills: int,
    record_property: Callable[[str, object], None],
) -> None:
    """Kill the runner over and over: as many results as points, none twice; one more rate runs only its own."""
    points = rates * decays
    machine = machine_in(tmp_path / "machine", rates, decays)
    begun = time.monotonic()
    hits = kill_often(forker, machine, kills, points)
    assert hits >= kills - 1
    assert fine_tune(forker, machine) == 0, machine.said()
    record_property("books", f"{points} points, {hits} kills, {time.monotonic() - begun:.1f} s")
    jobs = [record["job"] for record in records_of(machine).values()]
    assert len(jobs) == len(set(jobs)) == points + 1
    assert {record["status"] for record in records_of(machine).values()} == {"complete"}
    assert set(states(forker, machine).items()) == {(job, "done") for job in jobs}
    before = ledger(machine)
    assert fine_tune(forker, machine) == 0
    assert ledger(machine) == before
    add_a_rate(forker, machine, rates, decays)


def add_a_rate(forker: Forker, machine: Machine, rates: int, decays: int) -> None:
    """Only the new points are run, and the final training where the choice changed."""
    before, old = ledger(machine), states(forker, machine)
    write_study(machine, rates + 1, decays)
    planned = states(forker, machine)
    fresh = {job for job in planned if job not in old}
    assert len(fresh) == decays
    final = next(job for job in planned if "/final," in job)
    assert {job for job, state in planned.items() if state == "done"} == set(old) - {final}
    assert {planned[job] for job in fresh} == {"missing"}
    assert planned[final] == "waiting"
    machine.log.write_text("", encoding="utf-8")
    assert fine_tune(forker, machine) == 0
    after = ledger(machine)
    assert {name: after[name] for name in before} == before
    run = set(re.findall(r"^(fine_tune/\S+): (?:validation|test) ", machine.said(), flags=re.MULTILINE))
    assert run - {final} == fresh
    assert len(after) == len(before) + len(run)
    changed = [r for r in records_of(machine).values() if r["job"] == final]
    assert len(changed) == 1 + (final in run)
    assert len({r["spec"]["learning_rate"] for r in changed}) == len(changed) or len(changed) == 1
