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
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from cache import CacheKey, Store
from cache.staging import LOG_NAME, read_frames
from tests.pipeline.kills import POLL_SECONDS, Attempt, Forker, Machine, Phase, Victim, forking

DATA = os.environ.get("PENULTIMATE_TEST_DATA")
on_real_images = pytest.mark.skipif(
    not DATA or sys.platform != "linux",
    reason="PENULTIMATE_TEST_DATA names no folder of real images, or there is no /proc to watch groups in",
)
ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.xdist_group("kills")
IMAGES = {"train": 6, "test": 3}
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
ENTRIES = 4
PATIENCE_SECONDS = 120.0
MACHINES_A_KILL = 3
"""At most: a phase of milliseconds may be over before it is seen."""
KILLS_A_MACHINE = 8
"""After so many it is allowed to finish, and looked at."""
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
    with forking(environment, ROOT) as forker:
        yield forker


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
    return Attempt(pid, lambda: forker.wait(pid), lambda: forker.gather(pid))


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
    """In this phase; None = wherever it is then."""
    delay: float
    """Seconds after the phase is seen, or after the start of the process."""
    victim: Victim
    fresh: bool = False
    """Whether the process loads torch on its way."""


LENGTHS: dict[Phase | None, float] = {
    None: 0.6, "before": 0.8, "staging": 0.6, "building": 0.12, "publishing": 0.01, "between": 0.02
}  # fmt: skip
"""About how long a phase takes: delays are drawn over that."""


def draw(dice: random.Random, fresh_share: float) -> Aim:
    """Aim anywhere; the short phases more often than chance would hit them."""
    phase: Phase | None = dice.choices(
        [None, "staging", "building", "publishing", "between"], [1.0, 3.5, 2.0, 3.0, 0.5]
    )[0]
    victim: Victim = dice.choices(["group", "command", "builder"], [7, 2, 1])[0]
    if victim == "builder":
        phase = "building"
    if phase is None and dice.random() < fresh_share:
        return Aim(None, dice.uniform(0.0, FRESH_SECONDS), victim, fresh=True)
    return Aim(phase, dice.uniform(0.0, LENGTHS[phase]), victim)


def draw_all(kills: int, wanted: dict[Phase, int], fresh_share: float) -> list[Aim]:
    """Aim so often at each wanted phase, and otherwise anywhere, in any order."""
    dice = random.Random(kills)
    aims = [
        Aim(phase, dice.uniform(0.0, LENGTHS[phase]), "group")
        for phase, count in wanted.items()
        for _ in range(count)
    ]
    aims += [draw(dice, fresh_share) for _ in range(kills - len(aims))]
    dice.shuffle(aims)
    return aims


def kill(machine: Machine, attempt: Attempt, aim: Aim) -> tuple[Phase | None, int]:
    """Watch an attempt, end it as aimed, and say what it was doing then and how it ended.

    It is stopped when its moment comes, and ended if it is in its phase then. If it is not, it goes on, and
    is stopped sooner when the phase comes again: a short phase is hit however slow this machine is.
    The phase is None where the attempt was done before its moment came. Until then every entry that can
    be seen is looked at the moment it appears.
    """
    before = machine.traces()
    delay, due = aim.delay, time.monotonic() + aim.delay if aim.phase is None else None
    patience = time.monotonic() + PATIENCE_SECONDS
    hit: Phase | None = None
    while hit is None and attempt.alive():
        assert time.monotonic() < patience, machine.said()
        machine.check_visible()
        if due is None and machine.traces().since(before) == aim.phase:
            due = time.monotonic() + delay
        if due is not None and time.monotonic() >= due:
            attempt.freeze()
            phase = machine.traces().since(before)
            if aim.phase in {None, phase} and attempt.end(aim.victim):
                hit = phase
            else:
                attempt.thaw()
                delay, due = delay / 2, None
        time.sleep(POLL_SECONDS)
    status = attempt.wait()
    if aim.victim == "group":
        attempt.gather()
    # A process that had just ended by itself cannot be killed; a builder's end is the job's failure.
    return (hit if status in {-signal.SIGKILL, 1} else None), status


@dataclass
class Campaign:
    """Many kills on one machine after the other, and what came of them."""

    forker: Forker
    environment: dict[str, str]
    images: Path
    expected: dict[str, str]
    folder: Path
    phases: Counter[Phase] = field(default_factory=Counter)
    victims: Counter[Victim] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    machines: int = 0

    def machine(self) -> Machine:
        """Return the machine that is worked on next, with nothing on it."""
        self.machines += 1
        return machine_in(self.folder / f"machine{self.machines}", self.images, self.expected)

    def strike(self, machine: Machine, aim: Aim) -> bool:
        """Start the command and end it as aimed; False where it was done before its moment came."""
        failures = len(machine.failures())
        attempt = anew(self.environment, machine) if aim.fresh else forked(self.forker, machine)
        hit, status = kill(machine, attempt, aim)
        self.statuses[status] += 1
        machine.check_visible()
        told = machine.failures()
        assert len(told) == failures + (status == 1), told
        assert all("SIGKILL" in reason and "run again" in reason for reason in told), told
        if hit is None:
            assert status == 0, machine.said()
            return False
        self.phases[hit] += 1
        self.victims[aim.victim] += 1
        return True

    def finish(self, machine: Machine) -> None:
        """Let the command do what is left, and look at every byte."""
        assert self.forker.run(words_for(machine), machine) == 0, machine.said()
        machine.check_visible()
        assert machine.digests() == self.expected
        assert self.forker.run(["cache", "verify", "--quiet"], machine) == 0


@pytest.mark.parametrize(
    ("kills", "fresh_share", "wanted"),
    [
        (5, 0.0, {"staging": 1, "building": 1, "publishing": 1}),
        pytest.param(
            100,
            0.7,
            {"before": 3, "staging": 20, "building": 15, "publishing": 15, "between": 3},
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
) -> None:
    """End the real command again and again, go on, and find every entry as an undisturbed run has it."""
    campaign = Campaign(forker, environment, images, expected, tmp_path)
    machine = campaign.machine()
    for number, aim in enumerate(draw_all(kills, wanted, fresh_share), start=1):
        while not campaign.strike(machine, aim):
            assert campaign.machines < MACHINES_A_KILL * kills, f"never ended by {aim}: {campaign.phases}"
            campaign.finish(machine)
            machine = campaign.machine()
            aim = replace(aim, delay=aim.delay / 4)  # the phase is shorter here than was thought
        if number % KILLS_A_MACHINE == 0:
            campaign.finish(machine)
            machine = campaign.machine()
    campaign.finish(machine)
    counts = {name: dict(getattr(campaign, name)) for name in ("phases", "victims", "statuses")}
    sys.stdout.write(f"{counts} on {campaign.machines} machines\n")
    assert campaign.phases.total() == kills
    assert all(campaign.phases[phase] >= count for phase, count in wanted.items()), campaign.phases


@on_real_images
def test_a_waiting_command_takes_over_from_one_that_was_ended(
    forker: Forker, images: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    """The second says for whom it waits, goes on within five seconds, and both together do the work once."""
    machine = machine_in(tmp_path / "machine", images, expected)
    first = forked(forker, machine)
    wait_for(lambda: bool(machine.traces().staged), machine)
    first.freeze()
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
