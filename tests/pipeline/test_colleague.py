"""The colleague without images, torch or GPU: features arrive, and the scores are the same to the last digit."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cache.servers import ACCESS_KEY, SECRET_KEY, s3_server
from tests.pipeline import bare_environment
from tests.pipeline.kills import Forker, Machine, forking

DATA = os.environ.get("PENULTIMATE_TEST_DATA")
pytestmark = [
    pytest.mark.skipif(not DATA, reason="PENULTIMATE_TEST_DATA names no folder of real images"),
    pytest.mark.xdist_group("colleague"),
]

ROOT = bare_environment.ROOT
ABSENT = ("torch", "torchvision", "timm", "PIL", "matplotlib", "jinja2", "pyarrow", "pytest")
"""What a base installation does not bring."""
PRESENT = ("numpy", "scipy", "sklearn", "pandas", "h5py", "pipeline.run", "stages.probe", "cache")
STUDY = """
[study]
name = "handed-over"
output = "out"
[[backbone]]
name = "test_resnet.r160_in1k"
weights = "random"
size = 64
imagenet_top1 = 0.4
[[backbone]]
name = "test_vit.r160_in1k"
weights = "file:weights/vit.safetensors"
imagenet_top1 = 0.5
[[dataset]]
name = "flowers"
source = "csv:images/flowers.csv"
[[dataset]]
name = "scenes"
source = "csv:images/scenes.csv"
[extract]
batch_size = 16
num_workers = 1
[probe]
folds = 3
lambdas = { min = 1e-3, max = 1e3, count = 7 }
"""
ENTRIES = 8
JOBS = 4


@dataclass(frozen=True)
class Computer:
    """A folder with a study, a home, a cache, and the environment whose command is used."""

    home: Path
    command: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def work(self) -> Path:
        """Where the study lies."""
        return self.home / "work"

    def environment(self) -> dict[str, str]:
        """Nothing of the person who runs the tests but where programs lie."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PENULTIMATE_CACHE": str(self.home / "features"),
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            **self.variables,
        }

    def run(self, *words: str, command: tuple[str, ...] | None = None) -> str:
        """Run a command beside the study; it has to do all it was asked to."""
        done = subprocess.run(
            [*(self.command if command is None else command), *words],
            cwd=self.work,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout[-1000:], done.stderr[-3000:])
        return done.stdout

    def scores(self) -> bytes:
        """The table, byte by byte."""
        return (self.work / "out" / "scores.csv").read_bytes()

    def probes(self) -> dict[str, dict[str, Any]]:
        """What each probe recorded: selection table, choice, value, features used, per-example scores."""
        found = {}
        for path in sorted((self.work / "out/results/linear_probe").glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            result = {name: value for name, value in record["result"].items() if "second" not in name}
            found[path.stem] = {
                "result": result,
                "per example": record["files"][".npz"],
                "fitted": fitted(path.with_suffix(".safetensors")),
            }
        return found


@dataclass(frozen=True)
class Workstation(Computer):
    """The computer with images and torch, which is loaded once for all commands."""

    forker: Forker

    def run(self, *words: str, command: tuple[str, ...] | None = None) -> str:
        """Run a command in a process that has torch already; it has to do all it was asked to."""
        assert command is None
        machine = Machine(self.work, self.home / "features", self.home / "log")
        machine.log.unlink(missing_ok=True)
        assert self.forker.run(list(words), machine) == 0, (words, machine.said()[-3000:])
        return machine.said()


def fitted(probe: Path) -> tuple[dict[str, Any], bytes]:
    """Return a probe's header and its coefficients' bytes; the library shuffles the header's lines."""
    raw = probe.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def some_rows(source: Path, counts: Mapping[str, int]) -> list[str]:
    """Return lines of a csv over a few rows of every label of a real image set."""
    with (source / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    taken: dict[tuple[str, str], int] = {}
    lines = ["path,label,split"]
    for row in rows:
        place = (row["label"], row["split"])
        taken[place] = taken.get(place, 0) + 1
        if taken[place] <= counts[row["split"]]:
            lines.append(f"{source / row['path']},{row['label']},{row['split']}")
    return lines


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workstation]:
    """The machine with images and torch, its features cached, its probes joined."""
    import safetensors.torch
    import timm

    assert DATA is not None
    home = tmp_path_factory.mktemp("mine")
    computer = Computer(home, (sys.executable, "-m", "pipeline.cli"), {"PYTHONPATH": str(ROOT)})
    (computer.work / "images").mkdir(parents=True)
    (computer.work / "weights").mkdir()
    for name, folder in (("flowers", "flowers12"), ("scenes", "miml-scenes")):
        lines = some_rows(Path(DATA).resolve() / folder, {"train": 4, "test": 2})
        (computer.work / "images" / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (computer.work / "study.toml").write_text(STUDY, encoding="utf-8")
    network = timm.create_model("test_vit.r160_in1k", pretrained=False)
    safetensors.torch.save_file(network.state_dict(), computer.work / "weights/vit.safetensors")
    with forking(computer.environment(), computer.work) as forker:
        workstation = Workstation(home, computer.command, computer.variables, forker)
        workstation.run("run", "study.toml")
        yield workstation


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second environment's programs."""
    return bare_environment.build(tmp_path_factory.mktemp("bare") / "environment")


def colleague(home: Path, programs: Path, mine: Computer, **variables: str) -> Computer:
    """Give somebody the study file, and nothing else."""
    computer = Computer(home, (str(programs / "penultimate"),), variables)
    computer.work.mkdir(parents=True)
    shutil.copy(mine.work / "study.toml", computer.work)
    return computer


@pytest.fixture
def theirs(tmp_path: Path, programs: Path, mine: Computer) -> Computer:
    return colleague(tmp_path / "theirs", programs, mine)


def check_same(theirs: Computer, mine: Computer) -> None:
    """Scores, selection tables and per-example scores are those of the first machine to the last digit."""
    assert theirs.scores() == mine.scores()
    assert len(mine.probes()) == JOBS
    assert theirs.probes() == mine.probes()
    statistics = "out/statistics.json"
    assert (theirs.work / statistics).read_bytes() == (mine.work / statistics).read_bytes()
    assert not (theirs.work / "images").exists()


def received(answer: str) -> list[str]:
    """What became of each entry."""
    return [row["status"] for row in json.loads(answer)]


@pytest.mark.parametrize("module", ABSENT)
def test_the_second_environment_lacks_what_the_base_lacks(programs: Path, module: str) -> None:
    done = subprocess.run(
        [str(programs / "python"), "-c", f"import {module}"],
        capture_output=True, text=True, check=False, cwd=programs, env={"PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"ModuleNotFoundError: No module named '{module}'" in done.stderr


def test_the_second_environment_has_what_the_base_has(programs: Path) -> None:
    line = "import " + ", ".join(PRESENT)
    subprocess.run([str(programs / "python"), "-c", line], check=True, cwd=programs, env={"PATH": ""})


def test_what_lies_in_a_folder_is_pulled_probed_and_joined(
    mine: Computer, theirs: Computer, tmp_path: Path
) -> None:
    remote = str(tmp_path / "remote")
    assert (
        received(mine.run("cache", "push", remote, "--study", "study.toml", "--json")) == ["sent"] * ENTRIES
    )
    pulled = theirs.run("cache", "pull", remote, "--study", "study.toml", "--json")
    assert received(pulled) == ["received"] * ENTRIES
    theirs.run("cache", "verify", "--deep")
    theirs.run("probe", "study.toml")
    theirs.run("join", "study.toml")
    check_same(theirs, mine)
    assert theirs.run("probe", "study.toml").strip().startswith("nothing to do")


def test_make_does_the_same(mine: Computer, theirs: Computer, programs: Path, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    mine.run("cache", "push", str(tmp_path / "remote"), "--study", "study.toml")
    environment = str(programs.parent)
    made = make_command(programs, tmp_path)
    theirs.run(
        "cache-pull", "probe", "join",
        f"REMOTE={tmp_path / 'remote'}", f"STUDY={theirs.work / 'study.toml'}", f"VENV={environment}",
        command=made,
    )  # fmt: skip
    check_same(theirs, mine)


def make_command(programs: Path, tmp_path: Path) -> tuple[str, ...]:
    """Return make in a copy of the checkout whose base environment counts as built: nothing may be fetched for it."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    (programs.parent / "base.stamp").touch()
    return ("make", "--no-print-directory", "-C", str(checkout))


def test_what_comes_by_mail_is_imported_probed_and_joined(
    mine: Computer, theirs: Computer, tmp_path: Path
) -> None:
    letters = tmp_path / "letters"
    letters.mkdir()
    for row in json.loads(mine.run("cache", "list", "--json")):
        mine.run("cache", "export", row["key"], str(letters / f"{row['key'][:12]}.h5"))
    assert len(list(letters.glob("*.h5"))) == ENTRIES
    for letter in sorted(letters.glob("*.h5")):
        answer = json.loads(theirs.run("cache", "import", str(letter), "--json"))
        assert answer["status"] == "added"
    theirs.run("probe", "study.toml")
    theirs.run("join", "study.toml")
    check_same(theirs, mine)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables that lead s3fs to a real server, as a person would set them."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.options["client_kwargs"]["endpoint_url"],
        }


@pytest.mark.slow
def test_what_lies_in_s3_is_pulled_probed_and_joined(
    mine: Computer, s3: dict[str, str], tmp_path: Path
) -> None:
    remote = "s3://penultimate/handed-over"
    sender = Computer(mine.home, mine.command, {**mine.variables, **s3})
    pushed = sender.run("cache", "push", remote, "--study", "study.toml", "--json")
    assert received(pushed) == ["sent"] * ENTRIES
    programs = bare_environment.build(tmp_path / "environment", "s3fs")
    theirs = colleague(tmp_path / "theirs", programs, mine, **s3)
    pulled = theirs.run("cache", "pull", remote, "--study", "study.toml", "--json")
    assert received(pulled) == ["received"] * ENTRIES
    theirs.run("probe", "study.toml")
    theirs.run("join", "study.toml")
    check_same(theirs, mine)
