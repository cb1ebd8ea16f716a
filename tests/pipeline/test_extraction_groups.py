"""One decode for many backbones: every entry is to the byte what its backbone gives alone, whatever happens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import InputChangedError, Store
from pipeline.cache_folder import open_store
from pipeline.entry_facts import key_of, metadata_of
from pipeline.extraction_groups import ExtractionGroup, crews, free_bytes, network_bytes, plan_units
from pipeline.extraction_pass import extract_group
from pipeline.jobs import ExtractJob
from pipeline.ledger import Ledger
from pipeline.place import Done, Place
from pipeline.plan import plan
from pipeline.progress import Reporter
from pipeline.run import run
from stages.errors import BadImageError, StageError, UnreadFileError

NAMES = ("test_resnet.r160_in1k", "test_efficientnet.r160_in1k", "test_convnext.r160_in1k")
TRIO = {
    "backbone": [
        {"name": NAMES[0], "weights": "random", "size": 32, "interpolation": "bicubic"},
        {"name": NAMES[1], "weights": "random", "size": 32, "interpolation": "bicubic", "mean": [0.1, 0.2, 0.3]},
        {"name": NAMES[2], "weights": "random", "size": 32, "interpolation": "bicubic"},
    ],
    "extract": {"batch_size": 4, "num_workers": 1, "device": "cpu"},
}  # fmt: skip
OWN = """
import torch
class Fickle(torch.nn.Module):
    calls = 0
    built = 0
    def __init__(self):
        super().__init__()
        self.mean = torch.nn.AdaptiveAvgPool2d(1)
        Fickle.built += 1
    def forward(self, images):
        # Building looks at single images; afterwards the first batch is refused.
        if len(images) > 2:
            Fickle.calls += 1
            if Fickle.calls == 1:
                raise MemoryError("no room beside the others")
        return self.mean(images).flatten(1)
"""


class StopHereError(Exception):
    """What a test cancels with."""


def jobs_of(workshop, changes: dict | None = None, split: str = "train") -> list[ExtractJob]:
    study = workshop.load({**TRIO, **(changes or {})})
    jobs = [p.job for p in plan(study, stages=("extract",)).of("extract")]
    return [job for job in jobs if isinstance(job, ExtractJob) and job.split.name == split]


def together(jobs: list[ExtractJob]) -> ExtractionGroup:
    return ExtractionGroup(tuple(jobs), tuple(job.backbone for job in jobs))


def digest(store: Store, job: ExtractJob) -> str:
    assert job.key is not None
    return hashlib.sha256(store.path_of(job.key).read_bytes()).hexdigest()


@pytest.fixture
def place(workshop) -> Place:
    return place_at(workshop.folder / "here")


def place_at(folder: Path) -> Place:
    return Place(folder / "cache", folder / "out")


@pytest.fixture
def jobs(workshop) -> list[ExtractJob]:
    workshop.images(train=7)
    return jobs_of(workshop)


@pytest.fixture(scope="module")
def alone(workshop_at, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """SHA-256 of the entry of each job, made by itself."""
    workshop = workshop_at(tmp_path_factory.mktemp("alone"))
    workshop.images(train=7)
    place, jobs = place_at(workshop.folder), jobs_of(workshop)
    assert all(isinstance(extract_group(together([job]), place)[0], Done) for job in jobs)
    return {job.name: digest(open_store(place.root), job) for job in jobs}


def check(jobs: list[ExtractJob], place: Place, alone: dict[str, str]) -> None:
    assert {job.name: digest(open_store(place.root), job) for job in jobs} == {
        job.name: alone[job.name] for job in jobs
    }


def interrupt_at(row: int) -> Callable[[int, int, str], None]:
    def progress(done: int, _total: int, _note: str) -> None:
        if done >= row:
            raise StopHereError

    return progress


def test_entries_of_a_group_are_those_of_each_backbone_alone(jobs, alone, place) -> None:
    assert len({alone[job.name] for job in jobs}) == 3
    told: list[tuple[int, int, str]] = []
    outcomes = extract_group(together(jobs), place, lambda *of: told.append(of))
    assert all(isinstance(outcome, Done) and "one decode for 3" in outcome.line for outcome in outcomes)
    check(jobs, place, alone)
    assert [done for done, _, _ in told] == [4, 8, 12, 14]
    assert told[0][2].endswith("and 2 more train")
    records = Ledger(place.output).history().finished
    assert {records[job.name].result["together"] for job in jobs} == {3}


@pytest.mark.parametrize("later", [(), (0,), (2, 1)])
def test_a_group_goes_on_where_each_of_its_members_was(jobs, alone, place, later: tuple[int, ...]) -> None:
    outcomes = extract_group(together(jobs), place, interrupt_at(8))
    assert all(isinstance(outcome, StopHereError) for outcome in outcomes)
    for n in later:  # these get further, by themselves
        assert isinstance(extract_group(together([jobs[n]]), place, interrupt_at(12))[0], StopHereError)
    assert all(isinstance(outcome, Done) for outcome in extract_group(together(jobs), place))
    check(jobs, place, alone)
    resumed = [Ledger(place.output).history().finished[job.name].result["resumed_at"] for job in jobs]
    assert min(resumed) > 0
    assert all((resumed[n] > min(resumed)) == (n in later) for n in range(3)) or not later


def test_rows_staged_in_other_batches_are_gone_on_with_alone(jobs, place) -> None:
    odd = replace(jobs[1], batch_size=3)
    assert isinstance(extract_group(together([odd]), place, interrupt_at(6))[0], StopHereError)
    outcomes = extract_group(together(jobs), place)
    lines = [outcome.line for outcome in outcomes if isinstance(outcome, Done)]
    assert ["one decode for 2" in line for line in lines] == [True, False, True]


def test_a_member_that_fails_costs_the_others_nothing(jobs, alone, place, workshop) -> None:
    from stages.vision.networks import build_network

    state = build_network(jobs[1].backbone).state_dict()
    broken = {name: tensor / 0 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save(broken, workshop.folder / "broken.pth")
    tables = [dict(table) for table in TRIO["backbone"]]
    tables[1]["weights"] = "file:broken.pth"
    outcomes = extract_group(together(jobs_of(workshop, {"backbone": tables})), place)
    assert [type(outcome) for outcome in outcomes] == [Done, StageError, Done]
    assert "not finite" in str(outcomes[1])
    check([jobs[0], jobs[2]], place, alone)


def test_a_network_that_cannot_be_built_costs_the_others_nothing(jobs, alone, place) -> None:
    torn = replace(jobs[0], backbone=replace(jobs[0].backbone, pooling="no_such"))
    outcomes = extract_group(together([torn, *jobs[1:]]), place)
    assert "no_such" in str(outcomes[0])
    check(jobs[1:], place, alone)


def test_a_key_that_somebody_else_writes_is_come_back_to(jobs, alone, place) -> None:
    """The others are published before the lock is given back, and then it is this one's turn."""
    store, held = open_store(place.root), jobs[1]
    metadata = {**metadata_of(held), "expected_rows": len(held.split)}
    writer = store.writer(key_of(held), metadata)
    others = [job.key for job in (jobs[0], jobs[2])]
    locked, seen = threading.Event(), []

    def hold() -> None:
        with writer:
            locked.set()
            seen.append(wait_until(lambda: all(key in store for key in others)))

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    outcomes = extract_group(together(jobs), place)
    holder.join()
    assert seen == [True]
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    check(jobs, place, alone)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    stop = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        stop.wait(0.05)
    return False


def test_two_groups_over_the_same_keys_wait_for_each_other_only_once(jobs, alone, place) -> None:
    outcomes: list[list] = []
    orders = (jobs, jobs[::-1])
    threads = [
        threading.Thread(target=lambda order=order: outcomes.append(extract_group(together(order), place)))
        for order in orders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert all(isinstance(outcome, Done) for each in outcomes for outcome in each)
    check(jobs, place, alone)


def test_unreadable_images_are_left_out_of_every_entry_alike(workshop, place) -> None:
    workshop.images(train=7)
    for name in ("green/1.ppm", "red/6.ppm"):
        (workshop.folder / "colours" / "train" / name).write_bytes(b"broken")
    jobs = jobs_of(workshop, {"extract": {"batch_size": 4, "on_bad_image": "exclude"}})
    single = place_at(workshop.folder / "single")
    before = [extract_group(together([job]), single)[0] for job in jobs]
    outcomes = extract_group(together(jobs), place)
    assert [outcome.warnings for outcome in outcomes] == [outcome.warnings for outcome in before]
    assert all(len(outcome.warnings) == 2 for outcome in outcomes)
    check(jobs, place, {job.name: digest(open_store(single.root), job) for job in jobs})


def test_an_unreadable_image_is_everybodys_failure(workshop, place) -> None:
    workshop.images(train=7)
    (workshop.folder / "colours" / "train" / "green" / "5.ppm").write_bytes(b"broken")
    outcomes = extract_group(together(jobs_of(workshop)), place)
    assert [type(outcome) for outcome in outcomes] == [BadImageError] * 3


def test_a_file_that_cannot_be_read_is_left_out_of_nothing(workshop, place) -> None:
    """Gone in the middle and back again, whatever is done with bad images: the entries are whole in the end."""
    workshop.images(train=7)
    jobs = jobs_of(workshop, {"extract": {"batch_size": 2, "on_bad_image": "exclude"}})
    single = place_at(workshop.folder / "single")
    for job in jobs:
        extract_group(together([job]), single)
    away = workshop.folder / "away"
    images = jobs[0].split.paths[-1].parent

    def take_away(done: int, _total: int, _note: str) -> None:
        if done == 2:
            images.rename(away)

    outcomes = extract_group(together(jobs), place, take_away)
    assert [type(outcome) for outcome in outcomes] == [UnreadFileError] * 3
    away.rename(images)
    outcomes = extract_group(together(jobs), place)
    assert [outcome.warnings for outcome in outcomes] == [()] * 3
    check(jobs, place, {job.name: digest(open_store(single.root), job) for job in jobs})


def test_other_bytes_than_were_hashed_are_not_read(workshop, place) -> None:
    workshop.images(train=7)
    jobs = jobs_of(workshop, {"extract": {"on_bad_image": "exclude"}})
    jobs[0].split.paths[3].write_bytes(jobs[0].split.paths[4].read_bytes())
    (outcome, *_) = extract_group(together(jobs), place)
    assert isinstance(outcome, UnreadFileError)
    assert "changed since it was hashed" in str(outcome)


def test_images_that_change_meanwhile_are_found_once_and_nothing_is_published(jobs, place) -> None:
    def change(done: int, _total: int, _note: str) -> None:
        if done == 8:
            jobs[0].split.paths[0].write_bytes(jobs[0].split.paths[1].read_bytes())

    outcomes = extract_group(together(jobs), place, change)
    assert [type(outcome) for outcome in outcomes] == [InputChangedError] * 3
    assert not list((place.root / "features").glob("entries/**/*.h5"))
    assert not list((place.root / "features").glob("staging/*/*"))


@pytest.fixture
def fickle(workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network of one's own that says once that memory has run out."""
    (workshop.folder / "fickle_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(workshop.folder))
    yield "fickle_network"
    import sys

    sys.modules.pop("fickle_network", None)


def test_a_network_that_finds_no_room_in_the_group_runs_alone(workshop, place, fickle: str) -> None:
    workshop.images(train=7)
    own = {"name": f"python:{fickle}:Fickle", "size": 32, "interpolation": "bicubic"}
    study = workshop.load({**TRIO, "backbone": [*TRIO["backbone"][:2], own]})
    outcome = run(study, stages=("extract",))
    assert outcome.failed == ()
    import fickle_network

    assert fickle_network.Fickle.calls > 1


def test_a_run_decodes_once_and_builds_each_network_once(workshop, fickle: str) -> None:
    """Both splits through all networks: what is told, what is recorded, and how often one was built."""
    import fickle_network

    workshop.images(train=7, test=3)
    fickle_network.Fickle.calls = 1
    lines: list[str] = []

    class Listening(Reporter):
        def say(self, line: str) -> None:
            lines.append(line)

    own = {"name": f"python:{fickle}:Fickle", "size": 32, "interpolation": "bicubic"}
    study = workshop.load({**TRIO, "backbone": [*TRIO["backbone"], own]})
    plan(study, stages=("extract",))
    before = fickle_network.Fickle.built
    outcome = run(study, stages=("extract",), reporter=Listening())
    assert len(outcome.done) == 8
    assert sum("one decode for 4" in line for line in lines) == 8
    # Once for the hash of its weights, once for both splits.
    assert fickle_network.Fickle.built - before == 2


def test_batches_of_a_size_that_is_found_are_written_down(workshop, place) -> None:
    """On the CPU that is 64 for every network, and so they stay together."""
    workshop.images(train=7)
    jobs = jobs_of(workshop, {"extract": {"batch_size": "auto", "device": "cpu"}})
    outcomes = extract_group(together(jobs), place)
    assert all(isinstance(outcome, Done) and "one decode for 3" in outcome.line for outcome in outcomes)
    said = open_store(place.root).read(jobs[0].key).metadata["provenance"]
    assert (said["batch_size"], said["compiled"], said["device"]) == (64, False, "cpu")


def test_a_device_that_cannot_do_what_is_asked_fails_every_job_in_one_line(jobs, place) -> None:
    always = [replace(job, compile="always") for job in jobs]
    outcomes = extract_group(together(always), place)
    assert all("needs a GPU" in str(outcome) for outcome in outcomes)
    outcomes = extract_group(together([replace(job, batch_size=None) for job in always]), place)
    assert all("needs a GPU" in str(outcome) for outcome in outcomes)


def test_only_backbones_that_want_the_same_pixels_share_a_decode(workshop) -> None:
    workshop.images()
    tables = [dict(table) for table in TRIO["backbone"]]
    tables[1]["size"] = 48
    groups = plan_units(jobs_of(workshop, {"backbone": tables}), lambda _device: 1 << 40)
    assert [[job.backbone.name for job in group.jobs] for group in groups] == [
        [NAMES[0], NAMES[2]],
        [NAMES[1]],
    ]
    tables[1] |= {"size": 32, "interpolation": "bilinear"}
    assert len(plan_units(jobs_of(workshop, {"backbone": tables}), lambda _device: 1 << 40)) == 2
    assert len(plan_units(jobs_of(workshop), lambda _device: 1 << 40)) == 1


def test_a_job_that_only_gives_new_labels_or_lacks_its_weights_stays_alone(jobs) -> None:
    labelled, unknown = replace(jobs[0], twins=("0" * 64,)), replace(jobs[1], key=None)
    units = plan_units([labelled, unknown, jobs[2]], lambda _device: 1 << 40)
    assert units[:2] == [labelled, unknown]
    assert units[2].jobs == (jobs[2],)


def test_crews_keep_to_the_memory_that_is_free(jobs) -> None:
    backbones = [job.backbone for job in jobs]
    sizes = [network_bytes(backbone) for backbone in backbones]
    assert all(size > 1000 for size in sizes)
    everything = 2 * (sum(sizes) + 2 * max(sizes))
    assert crews(backbones, everything) == [tuple(backbones)]
    assert [len(crew) for crew in crews(backbones, everything - 2)] in ([2, 1], [1, 2])
    assert [len(crew) for crew in crews(backbones, 0)] == [1, 1, 1]
    assert crews([], 0) == []


def test_memory_is_known_here_and_nothing_is_free_on_a_device_that_is_not() -> None:
    assert 0 < free_bytes("cpu") < 1 << 50
    assert free_bytes("abacus") == 0


def test_a_size_is_found_for_every_kind_of_weights(jobs, tmp_path: Path) -> None:
    backbone = replace(jobs[0].backbone, name="python:a:b")
    assert network_bytes(backbone) == 1 << 30
    (tmp_path / "w.pth").write_bytes(np.zeros(100).tobytes())
    with_file = replace(backbone, weights=replace(backbone.weights, path=tmp_path / "w.pth"))
    assert network_bytes(with_file) == 800
