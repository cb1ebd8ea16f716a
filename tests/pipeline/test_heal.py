"""Features that are damaged or gone are extracted again in the same run, before or while probes need them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.ledger import Ledger
from pipeline.plan import plan
from pipeline.progress import Reporter
from pipeline.run import run
from stages.records import Progress

NET = "test_resnet.r160_in1k"
TEST = f"extract/{NET}/colours/test"
PROBE = f"probe/{NET}/colours"
QUICK = {"extract": {"batch_size": 8, "num_workers": 1, "device": "cpu"}}


class Meddling(Reporter):
    """Keeps what it is told, and does something whenever a stage of this name is about to start."""

    def __init__(self, stage: str = "", meddle: Callable[[], None] = lambda: None) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.stages: list[str] = []
        self._stage, self._meddle = stage, meddle

    def say(self, line: str) -> None:
        self.lines.append(line)

    complain = say

    @contextlib.contextmanager
    def bar(self, title: str, unit: str = "") -> Iterator[Progress]:
        self.stages.append(title)
        if title == self._stage:
            self._meddle()
        with super().bar(title, unit) as progress:
            yield progress


@pytest.fixture(scope="module")
def extracted(workshop_at, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study after stage one."""
    home = tmp_path_factory.mktemp("extracted")
    (home / "work").mkdir()
    workshop = workshop_at(home / "work")
    workshop.images()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENULTIMATE_CACHE", str(home / "cache"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        assert len(run(workshop.load(QUICK), ("extract",)).done) == 2
    return home


@pytest.fixture
def study(extracted: Path, workshop) -> Study:
    shutil.copytree(extracted / "work", workshop.folder, dirs_exist_ok=True)
    shutil.copytree(extracted / "cache", cache_root())
    return load_study(workshop.folder / "study.toml")


def entry_file(split: str = "test") -> Path:
    return open_store().find_one(split=split).path


def flip(path: Path, place: float = 0.9) -> None:
    """Flip one bit, behind the index where ``place`` is large and in it where it is small."""
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a value": flip,
    "the index": lambda path: flip(path, 0.002),
    "cut": lambda path: (path.chmod(0o644), path.write_bytes(path.read_bytes()[:-10]))[0],
    "another file": lambda path: (path.chmod(0o644), path.write_bytes(b"<!DOCTYPE html>"))[0],
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_extracted_again_before_the_probe(damage: str, study: Study) -> None:
    path = entry_file()
    before = path.read_bytes()
    DAMAGES[damage](path)
    reporter = Meddling()
    outcome = run(study, ("extract", "probe"), workers=1, reporter=reporter)
    assert (outcome.done, outcome.failed, outcome.waiting) == ((TEST, PROBE), (), ())
    assert path.read_bytes() == before
    assert reporter.stages.count("probe") == 1
    told = [line for line in reporter.lines if "made again" in line or "set aside" in line]
    assert len(told) == (damage != "gone"), told


def test_one_line_says_what_happened(study: Study, penultimate, workshop) -> None:
    flip(entry_file())
    result = penultimate("run", workshop.folder / "study.toml", "--jobs", 1)
    assert result.status == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "damaged" in line]
    assert line.startswith(f"{TEST}: cached features are damaged (its data hash to ")
    assert line.endswith("): made again")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_in_between_is_extracted_again_too(damage: str, study: Study, workers: int) -> None:
    done: list[str] = []

    def once() -> None:
        if not done:
            done.append(damage)
            DAMAGES[damage](entry_file())

    reporter = Meddling("probe", once)
    outcome = run(study, ("extract", "probe"), workers=workers, reporter=reporter)
    assert (set(outcome.done), outcome.failed, outcome.waiting) == ({TEST, PROBE}, (), ())
    word = "gone" if damage == "gone" else "damaged"
    (line,) = [line for line in reporter.lines if line.endswith("made again")]
    assert line.startswith(f"{PROBE}: cached features are {word}")
    assert not Ledger(study.output).history().failed


def test_what_is_damaged_time_and_again_ends_as_a_failure(study: Study) -> None:
    reporter = Meddling("probe", lambda: flip(entry_file()))
    outcome = run(study, ("extract", "probe"), workers=1, reporter=reporter)
    assert [failure.job for failure in outcome.failed] == [PROBE]
    assert "set aside" in outcome.failed[0].reason
    assert "\n" not in outcome.failed[0].reason
    assert outcome.waiting == ()
    assert reporter.stages.count("probe") == 2
    assert run(study, ("extract", "probe"), workers=1).failed == ()


@pytest.mark.parametrize(("stages", "only"), [(("probe",), None), (("extract", "probe"), "^probe")])
def test_without_the_extraction_it_is_a_failure_that_says_what_to_do(
    study: Study, stages: tuple, only: str | None
) -> None:
    flip(entry_file())
    outcome = run(study, stages, only=only, workers=1)
    (failure,) = outcome.failed
    assert failure.job == PROBE
    assert "treated as missing: extract or pull it again" in failure.reason
    assert outcome.done == ()


def test_the_probe_command_alone_is_one_line_and_exit_1(study: Study, penultimate, workshop) -> None:
    flip(entry_file())
    result = penultimate("probe", workshop.folder / "study.toml", "--jobs", 1)
    assert result.status == 1
    (line,) = [line for line in result.err.splitlines() if "failed:" in line]
    assert "extract or pull it again" in line
    again = penultimate("probe", workshop.folder / "study.toml", "--json")
    assert again.status == 1
    assert json.loads(again.out)["waiting"] == [
        {"job": PROBE, "why": "test: what was there is damaged, and was set aside; extract or pull it"}
    ]


def test_the_list_of_unreadable_images_is_read_from_what_is_sound(study: Study, workshop) -> None:
    """Planning of training reads entries: a damaged one is no reason to refuse the study."""
    entry_file_before = entry_file()
    table = {"budget": "tiny", "steps": 1, "batch_size": 4, "image_size": 32, "device": "cpu"}
    study = workshop.load({"extract": {**QUICK["extract"], "on_bad_image": "exclude"}, "fine_tune": table})
    run(study, ("extract",))
    (path,) = {info.path for info in open_store().find(split="test")} - {entry_file_before}
    flip(path)
    lines: list[str] = []
    first = plan(study, notify=lines.append)
    assert "set aside" in lines[0]
    assert {p.state for p in first.of("fine-tune")} == {"waiting"}
    assert [p.name for p in plan(study).to_run("extract")] == [TEST]
    outcome = run(study, ("extract", "fine-tune"))
    assert outcome.failed == ()
    assert len(outcome.done) == 2


def test_pinned_features_are_healed_to_the_pinned_bytes(study: Study, penultimate, workshop) -> None:
    file = workshop.folder / "study.toml"
    assert penultimate("cache", "pin", file).status == 0
    path = entry_file()
    before = path.read_bytes()
    flip(path)
    result = penultimate("run", file, "--jobs", 1, "--json")
    assert result.status == 0, result.err
    assert TEST in json.loads(result.out)["done"]
    assert path.read_bytes() == before


def test_provenance_names_the_device_that_was_used(study: Study, workshop) -> None:
    """Not the word "auto", which says nothing a year later."""
    entry_file().unlink()
    study = workshop.load({"extract": {**QUICK["extract"], "device": "auto"}})
    assert study.extract.device == "auto"
    run(study, ("extract",))
    entry = open_store().read(open_store().find_one(split="test").key)
    assert entry.metadata["provenance"]["device"] in ("cpu", "cuda")
