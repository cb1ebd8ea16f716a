"""SIGKILL at any moment of an extraction over real images: resumed, whole, and the same to the last byte."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cache import CacheKey, Store
from cache.staging import LOG_NAME, read_frames
from tests.pipeline.kills import Attempt, Forker, Machine, Phase, Victim

DATA = os.environ.get("PENULTIMATE_TEST_DATA")
on_real_images = pytest.mark.skipif(
    not DATA or sys.platform != "linux",
    reason="PENULTIMATE_TEST_DATA names no folder of real images, or there is no /proc to watch groups in",
)
PROGRAM = Path(__file__).with_name("kill_program.py")
ROOT = Path(__file__).parent.parent.parent
IMAGES = {"train": 6, "validation": 3, "test": 3}
"""A class."""
CLASSES = 5
STUDY = """
[study]
name = "kills"
output = "out"
[[backbone]]
name = "test_resnet.r160_in1k"
weights = "random"
size = 64
[[backbone]]
name = "test_vit.r160_in1k"
weights = "random"
[[dataset]]
name = "flowers"
source = "csv:split.csv"
[extract]
batch_size = 2
num_workers = 1
"""
ENTRIES = 6
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.0005
FRESH_SECONDS = 9.0
"""About how long a command takes that has to load torch first."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One thread, and a state folder of its own."""
    state = tmp_path_factory.mktemp("state")
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT)}


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


def machine_in(folder: Path, images: Path, expected: dict[str, str]) -> Machine:
    """Make a folder in which the study can be run."""
    folder.mkdir()
    (folder / "split.csv").symlink_to(images)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    return Machine(folder, folder / "cache", folder / "log", expected)


def words_for(machine: Machine) -> list[str]:
    """The command, as a person would type it."""
    return ["extract", str(machine.folder / "study.toml")]


@pytest.fixture(scope="module")
def forker(environment: dict[str, str]) -> Iterator[Forker]:
    """Commands in processes that have torch already."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Forker(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def expected(forker: Forker, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """SHA-256 of every entry, by key, after a run that nobody disturbed."""
    reference = machine_in(tmp_path_factory.mktemp("reference") / "machine", images, {})
    assert forker.run(words_for(reference), reference) == 0, reference.said()
    digests = reference.digests()
    assert len(digests) == ENTRIES
    return digests


def forked(forker: Forker, machine: Machine) -> Attempt:
    """Start the command in a process that has torch already."""
    pid = forker.start(words_for(machine), machine)
    return Attempt(pid, forker.wait, lambda: forker.gather(pid))


def anew(environment: dict[str, str], machine: Machine) -> Attempt:
    """Start the command as a shell does, loading torch on the way."""
    own = {**environment, "PENULTIMATE_CACHE": str(machine.cache)}
    with machine.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *words_for(machine)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own, start_new_session=True,
        )  # fmt: skip
    return Attempt(process.pid, process.wait, lambda: None)


@dataclass(frozen=True)
class Aim:
    """Which process is to be ended, and when."""

    phase: Phase | None
    """Wait for this phase; None = from the start of the process."""
    delay: float
    """Seconds after that."""
    victim: Victim


LENGTHS: dict[Phase | None, float] = {
    None: 0.6, "staging": 0.5, "building": 0.6, "publishing": 0.015, "between": 0.5, "before": 0.0
}  # fmt: skip
"""About how long a phase takes: delays are drawn over a little more than that."""


def draw(dice: random.Random) -> Aim:
    """Aim anywhere; the short phases more often than chance would hit them."""
    phase: Phase | None = dice.choices(
        [None, "staging", "building", "publishing", "between"], [1.0, 3.5, 2.0, 3.0, 0.5]
    )[0]
    victim: Victim = dice.choices(["group", "command", "builder"], [7, 2, 1])[0]
    if victim == "builder":
        phase = "building"
    return Aim(phase, dice.uniform(0.0, LENGTHS[phase]), victim)


def kill(machine: Machine, attempt: Attempt, aim: Aim) -> tuple[Phase | None, int]:
    """Watch an attempt, end it as aimed, and say what it was doing then and how it ended.

    The phase is None where the attempt was done before its moment came. Until then every entry that can
    be seen is looked at the moment it appears.
    """
    before = machine.traces()
    deadline: float | None = time.monotonic() + aim.delay if aim.phase is None else None
    patience = time.monotonic() + PATIENCE_SECONDS
    ended = False
    while attempt.alive():
        assert time.monotonic() < patience, machine.said()
        machine.check_visible()
        if deadline is None and machine.traces().since(before) == aim.phase:
            deadline = time.monotonic() + aim.delay
        if deadline is not None and time.monotonic() >= deadline:
            ended = attempt.end(aim.victim)
            if aim.victim != "builder" or ended:
                break
        time.sleep(POLL_SECONDS)
    status = attempt.wait()
    if aim.victim == "group":
        attempt.gather()
    if ended and aim.victim == "builder" and status == 1:
        return "building", status
    hit = ended and status == -signal.SIGKILL
    return (machine.traces().since(before) if hit else None), status


@dataclass(frozen=True)
class Campaign:
    """What came of many kills."""

    phases: Counter[Phase]
    victims: Counter[Victim]
    statuses: Counter[int]
    machines: int
    seconds: float


def wage(
    kills: int,
    wanted: dict[Phase, int],
    fresh_share: float,
    forker: Forker,
    environment: dict[str, str],
    tmp_path: Path,
    images: Path,
    expected: dict[str, str],
) -> Campaign:
    """Kill until there were enough kills, and enough in each phase; check after every one of them."""
    dice = random.Random(kills)
    phases: Counter[Phase] = Counter()
    victims: Counter[Victim] = Counter()
    statuses: Counter[int] = Counter()
    number = 0
    start = time.monotonic()

    def lacking() -> list[Phase]:
        return [phase for phase, count in wanted.items() if phases[phase] < count]

    while phases.total() < kills or lacking():
        assert phases.total() < 3 * kills + 10, f"never ended while {lacking()}: {phases}"
        machine = machine_in(tmp_path / f"machine{number}", images, expected)
        number += 1
        builders_ended = 0
        while True:
            aim = draw(dice)
            if phases.total() >= kills // 2 and lacking():
                phase = dice.choice(lacking())
                aim = Aim(phase, dice.uniform(0.0, LENGTHS[phase]), "group")
            fresh = aim.phase is None and dice.random() < fresh_share
            if fresh:
                aim = Aim(None, dice.uniform(0.0, FRESH_SECONDS), aim.victim)
            attempt = anew(environment, machine) if fresh else forked(forker, machine)
            hit, status = kill(machine, attempt, aim)
            statuses[status] += 1
            machine.check_visible()
            failures = machine.failures()
            assert len(failures) == builders_ended + (status == 1), failures
            assert all("SIGKILL" in reason and "run again" in reason for reason in failures), failures
            builders_ended = len(failures)
            if hit is None:
                assert status == 0, machine.said()
                break
            phases[hit] += 1
            victims[aim.victim] += 1
        assert machine.digests() == expected
        assert forker.run(["cache", "verify", "--quiet"], machine) == 0
    return Campaign(phases, victims, statuses, number, time.monotonic() - start)


@pytest.mark.parametrize(
    ("kills", "fresh_share", "wanted"),
    [
        (5, 0.0, {"staging": 1, "building": 1, "publishing": 1}),
        pytest.param(
            100,
            0.7,
            {"before": 3, "staging": 20, "building": 10, "publishing": 10, "between": 3},
            marks=pytest.mark.slow,
        ),
    ],
)
@on_real_images
def test_kills_cost_nothing_but_time(
    kills: int,
    fresh_share: float,
    wanted: dict[Phase, int],
    forker: Forker,
    environment: dict[str, str],
    images: Path,
    expected: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """End the real command again and again, go on, and find every entry as an undisturbed run has it."""
    campaign = wage(kills, wanted, fresh_share, forker, environment, tmp_path, images, expected)
    record_property("kills", str(campaign))
    assert campaign.phases.total() >= kills
    assert all(campaign.phases[phase] >= count for phase, count in wanted.items()), campaign


@on_real_images
def test_a_waiting_command_takes_over_from_one_that_was_ended(
    forker: Forker, environment: dict[str, str], images: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    """The second says for whom it waits, goes on within five seconds, and both together do the work once."""
    machine = machine_in(tmp_path / "machine", images, expected)
    first = anew(environment, machine)
    wait_for(lambda: bool(machine.traces().staged), machine)
    os.killpg(first.pid, signal.SIGSTOP)
    second = forked(forker, machine)
    wait_for(lambda: f"held by process {first.pid} of" in machine.said(), machine)
    before = machine.traces()
    start = time.monotonic()
    assert first.end("group")
    wait_for(lambda: machine.traces() != before, machine)
    assert time.monotonic() - start < 5.0
    machine.check_visible()
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0, machine.said()
    assert machine.digests() == machine.expected


def wait_for(condition: Callable[[], bool], machine: Machine) -> None:
    """Wait until something is so."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < patience, machine.said()
        time.sleep(POLL_SECONDS)


def test_an_end_between_the_opening_and_the_first_batch_is_resumed(tmp_path: Path) -> None:
    """The log holds what is being made and no row of it: the narrowest moment to be ended in."""
    store = Store(tmp_path / "cache", private=tmp_path / "private")
    key = CacheKey.from_ingredients({"backbone": "resnet50"})
    metadata = {
        "coordinates": {"backbone": "resnet50"}, "class_names": ["a", "b"], "multi_label": False, "expected_rows": 2
    }  # fmt: skip
    batch = {
        "features": np.ones((2, 3), np.float32),
        "labels": np.array([0, 1]),
        "ids": ["x", "y"],
        "stop": 2,
    }
    groups = {"group": [None, None]}
    with store.writer(key, metadata) as writer:
        writer.append(**batch, row_metadata=groups)
    log = store.staging_folder(key) / LOG_NAME
    os.truncate(log, next(read_frames(log)).end)
    with store.writer(key, metadata) as writer:
        assert writer.next_row == 0
        writer.append(**batch, row_metadata=groups)
        assert writer.publish().row_metadata["group"] == (None, None)
