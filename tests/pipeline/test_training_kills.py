"""SIGKILL and SIGTERM at any moment of a grid of trainings: the results are those of an undisturbed run."""

from __future__ import annotations

import csv
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.pipeline.kills import Attempt, Forker, Machine
from tests.pipeline.trainings import ROOT, Moment, Phase, forking, moment, outcome_of, records_of, send

DATA = os.environ.get("PENULTIMATE_TEST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA or sys.platform != "linux",
    reason="PENULTIMATE_TEST_DATA names no folder of real images, or there is no /proc to find workers in",
)
IMAGES = {"train": 6, "validation": 4, "test": 4}
"""A class."""
CLASSES = 4
STEPS = 20
GRID = 4
FINALS = 2
STUDY = f"""
[study]
name = "kills"
output = "out"
[[backbone]]
name = "mobilenetv3_small_050.lamb_in1k"
weights = "random"
size = 32
[[dataset]]
name = "flowers"
source = "csv:split.csv"
[probe]
enabled = false
[fine_tune]
steps = {STEPS}
batch_size = 8
learning_rates = [0.01, 0.1]
weight_decays = [0.0, 1e-4]
seeds = [0, 1]
keep_weights = true
checkpoint_minutes = 0.001
"""
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.002

Victim = Literal["group", "command", "worker"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A state folder of its own, and threads that do not spin while they wait."""
    state = tmp_path_factory.mktemp("state")
    own = {"XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    return {**{k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}, **own}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of a few real photographs."""
    assert DATA is not None
    source = Path(DATA).resolve() / "flowers12"
    with (source / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = ["path,label,split"]
    for label in sorted({row["label"] for row in rows})[:CLASSES]:
        mine = iter(sorted(row["path"] for row in rows if row["label"] == label))
        for split, count in IMAGES.items():
            lines += [f"{source / next(mine)},{label},{split}" for _ in range(count)]
    path = tmp_path_factory.mktemp("images") / "split.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def machine_in(folder: Path, images: Path) -> Machine:
    """Make a folder in which the study can be run."""
    folder.mkdir()
    (folder / "split.csv").symlink_to(images)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    return Machine(folder, folder / "cache", folder / "log")


def start(forker: Forker, machine: Machine, workers: int) -> Attempt:
    """Start the command, as a person would type it."""
    words = ["fine-tune", str(machine.folder / "study.toml"), "--jobs", str(workers)]
    pid = forker.start(words, machine)
    return Attempt(pid, lambda: forker.wait(pid), lambda: forker.gather(pid))


def undisturbed(forker: Forker, machine: Machine, workers: int) -> dict[str, Any]:
    """Run the study without interruptions and return what comes of it."""
    assert start(forker, machine, workers).wait() == 0, machine.said()
    outcome = outcome_of(machine)
    assert len(outcome) == GRID + FINALS + FINALS  # the weights of the final trainings count too
    assert all(r["provenance"]["resumed_from"] == [] for r in records_of(machine).values())
    return outcome


@pytest.fixture(scope="module")
def one_core(environment: dict[str, str]) -> Iterator[Forker]:
    """Commands on one core: threads that wait for a core that others have take many times as long."""
    with forking(environment, {min(os.sched_getaffinity(0))}) as forker:
        yield forker


@pytest.fixture(scope="module")
def all_cores(environment: dict[str, str]) -> Iterator[Forker]:
    """Commands on as many cores as there are."""
    with forking(environment, os.sched_getaffinity(0)) as forker:
        yield forker


@dataclass(frozen=True)
class Aim:
    """Which signal is to be sent to whom, and when."""

    signal: signal.Signals
    victim: Victim
    training: bool
    """Whether to wait until this attempt trains."""
    delay: float
    """Seconds after that, or after the start."""


@dataclass
class Campaign:
    """What came of many signals."""

    hits: Counter[tuple[str, Victim, Phase]] = field(default_factory=Counter)
    machines: int = 0
    resumed: int = 0
    """How often a job was taken up again in its middle."""
    seconds: float = 0.0

    def sent(self, number: signal.Signals) -> int:
        """Return how many attempts ended by a signal."""
        return sum(count for (name, _, _), count in self.hits.items() if name == number.name)


def disturb(machine: Machine, attempt: Attempt, aim: Aim, before: Moment) -> tuple[Phase | None, int]:
    """Watch an attempt, send it a signal as aimed, and say what it was doing then and how it ended.

    The phase is None where the attempt was done before its moment came.
    """
    deadline = None if aim.training else time.monotonic() + aim.delay
    patience = time.monotonic() + PATIENCE_SECONDS
    hit: Phase | None = None
    while attempt.alive() and hit is None:
        assert time.monotonic() < patience, machine.said()
        if deadline is None and moment(machine).since(before) == "training":
            deadline = time.monotonic() + aim.delay
        if deadline is not None and time.monotonic() >= deadline:
            phase = moment(machine).since(before)
            hit = phase if send(attempt.pid, aim.signal, aim.victim) else None
        time.sleep(POLL_SECONDS)
    status = attempt.wait()
    attempt.gather()
    ended = status in (4, -signal.SIGKILL) or aim.victim == "worker"
    return (hit if ended else None), status


def check_end(machine: Machine, aim: Aim, before: Moment, status: int) -> None:
    """Look at what an ended attempt left: every SIGTERM is answered, and costs not one step."""
    after = moment(machine)
    trained = after.open_since(before)
    saved = {name: after.checkpoints.get(name, 0) for name in trained}
    assert all(steps >= before.checkpoints.get(name, 0) for name, steps in saved.items())
    if aim.signal == signal.SIGTERM:
        assert status == 4, machine.said()
        assert machine.said().count("run the same command again") == before.answered + 1
        assert saved == trained, machine.said()
    else:
        assert status == (0 if aim.victim == "worker" else -signal.SIGKILL), machine.said()


def check_records(machine: Machine, seen: dict[str, set[int]] | None) -> int:
    """Every job was trained to its end once, and from its newest checkpoint; return how many were resumed.

    ``seen`` holds the checkpoints that lay there when an attempt began; None where a worker was replaced in
    the middle of an attempt, and nobody saw what it left.
    """
    records = records_of(machine)
    folders = [path for path in (machine.folder / "out" / "training").glob("*/*") if path.name != "locks"]
    stems = {folder.name.rpartition(".")[0]: folder.name for folder in folders if "=" in folder.name}
    assert sorted(records) == sorted(f"{stem}.a1" for stem in stems)
    assert [record["status"] for record in records.values()] == ["complete"] * (GRID + FINALS)
    resumed = 0
    for stem, folder in stems.items():
        steps = records[f"{stem}.a1"]["provenance"]["resumed_from"]
        assert steps == sorted(steps)
        if seen is not None:
            assert set(steps) <= seen.get(folder, set())
            assert max(steps, default=0) == max(seen.get(folder, {0}))
        resumed += len(steps)
    return resumed


Draw = Callable[[random.Random, list[signal.Signals]], Aim]


def wage(
    wanted: dict[signal.Signals, int],
    draw: Draw,
    forker: Forker,
    tmp_path: Path,
    images: Path,
    expected: dict[int, dict[str, Any]],
) -> Campaign:
    """Send signals until there were enough; whatever they hit, every study ends as if there were none."""
    dice = random.Random(sum(wanted.values()))
    campaign = Campaign()
    begun = time.monotonic()

    def lacking() -> list[signal.Signals]:
        return [number for number, count in wanted.items() for _ in range(count - campaign.sent(number))]

    while lacking():
        assert campaign.machines < sum(wanted.values()) + 5, campaign
        machine = machine_in(tmp_path / f"machine{campaign.machines}", images)
        campaign.machines += 1
        workers = dice.choice(sorted(expected))
        seen: dict[str, set[int]] | None = {}
        while True:
            before = moment(machine)
            for name, steps in before.checkpoints.items():
                if seen is not None and not before.is_done(name):
                    seen.setdefault(name, set()).add(steps)
            if not lacking():
                assert start(forker, machine, workers).wait() == 0, machine.said()
                break
            aim = draw(dice, lacking())
            if workers == 1 and aim.victim == "worker":
                aim = replace(aim, victim="command")
            phase, status = disturb(machine, start(forker, machine, workers), aim, before)
            if phase is not None:
                check_end(machine, aim, before, status)
                campaign.hits[aim.signal.name, aim.victim, phase] += 1
                assert campaign.hits.total() < 3 * sum(wanted.values()), campaign
                seen = None if aim.victim == "worker" else seen
            if status == 0:
                break
        assert outcome_of(machine) == expected[workers]
        campaign.resumed += check_records(machine, seen)
    campaign.seconds = time.monotonic() - begun
    return campaign


def aim_anywhere(dice: random.Random, lacking: list[signal.Signals]) -> Aim:
    """Aim anywhere, more often at trainings under way than chance would."""
    number = dice.choice(lacking)
    victim: Victim = dice.choices(["group", "command", "worker"], [4, 3, 2])[0]
    if number == signal.SIGTERM and victim == "worker":
        victim = "command"
    training = victim == "worker" or dice.random() < 0.7
    return Aim(number, victim, training, dice.uniform(0.0, 2.0 if training else 8.0))


def aim_soon(dice: random.Random, lacking: list[signal.Signals]) -> Aim:
    """Aim at the first trainings of an attempt, as a quick test has to."""
    return Aim(lacking[0], dice.choice(["group", "command"]), True, dice.uniform(0.0, 0.6))


def test_signals_cost_nothing_but_time(
    one_core: Forker, images: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A few signals, one job at a time: resumed from their checkpoints, to the same bits."""
    expected = {1: undisturbed(one_core, machine_in(tmp_path / "reference", images), 1)}
    wanted = {signal.SIGKILL: 3, signal.SIGTERM: 2}
    campaign = wage(wanted, aim_soon, one_core, tmp_path, images, expected)
    record_property("signals", str(campaign))
    assert campaign.resumed >= 2, campaign


def test_workers_save_what_they_have(one_core: Forker, images: Path, tmp_path: Path) -> None:
    """SIGTERM to a command whose jobs run in workers: both jobs under way are saved, and go on from there."""
    machine = machine_in(tmp_path / "machine", images)
    empty = moment(machine)
    attempt = start(one_core, machine, 2)
    patience = time.monotonic() + PATIENCE_SECONDS
    while len([lines for lines in moment(machine).open_since(empty).values() if lines > 2]) < 2:
        assert time.monotonic() < patience
        time.sleep(POLL_SECONDS)
    assert send(attempt.pid, signal.SIGTERM, "command")
    status = attempt.wait()
    attempt.gather()
    check_end(machine, Aim(signal.SIGTERM, "command", True, 0.0), empty, status)
    assert len(moment(machine).checkpoints) == 2


@pytest.mark.slow
def test_many_signals_at_any_moment(
    all_cores: Forker, images: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """30 SIGKILLs and 10 SIGTERMs, to whole groups, to commands alone, to workers, whatever they do."""
    expected = {
        workers: undisturbed(all_cores, machine_in(tmp_path / f"reference{workers}", images), workers)
        for workers in (1, 2)
    }
    wanted = {signal.SIGKILL: 30, signal.SIGTERM: 10}
    campaign = wage(wanted, aim_anywhere, all_cores, tmp_path, images, expected)
    record_property("signals", str(campaign))
    assert campaign.resumed >= 20, campaign
