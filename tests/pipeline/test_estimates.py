"""Estimates: the simulation, the figures for disk, what is counted, what is asked, what is told."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CacheKey, Store
from pipeline import consent, footprint
from pipeline.config import Study
from pipeline.estimates import Estimate, estimate
from pipeline.footprint import Footprint, entry_bytes, too_little_disk
from pipeline.image_sizes import mean_megapixels
from pipeline.ledger import Ledger
from pipeline.own_rates import summarise
from pipeline.plan import plan
from pipeline.rates import GPUS, decode_seconds, hardware, probe_seconds
from pipeline.run import run
from pipeline.simulate import makespan
from pipeline.tasks import Phase, Task
from stages.backbones import known, lookup
from stages.costs import forward_cost
from stages.records import Split

SECONDS = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)
PAPER = {"fine_tune": {"budget": "paper"}}


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@given(SECONDS, st.integers(1, 50), st.floats(0, 100))
def test_a_schedule_lies_between_its_bounds(seconds: list[float], workers: int, start: float) -> None:
    used = min(workers, len(seconds))
    found = makespan(seconds, workers, start) - start
    lower = max(*seconds, sum(seconds) / used)
    assert found >= lower - 1e-6
    assert found <= sum(seconds) + 1e-6
    # Graham's bound holds against the best schedule, which is no shorter than this lower bound allows.
    assert found <= sum(seconds) / used + (1 - 1 / used) * max(seconds) + 1e-6


@given(SECONDS, st.integers(1, 50), st.floats(0, 100))
def test_another_worker_never_makes_it_longer(seconds: list[float], workers: int, start: float) -> None:
    assert makespan(seconds, workers + 1, start) <= makespan(seconds, workers, start) + 1e-6


@given(SECONDS, st.integers(1, 50), st.randoms())
def test_the_order_of_the_jobs_is_nothing_to_a_schedule(
    seconds: list[float], workers: int, dice: Any
) -> None:
    shuffled = list(seconds)
    dice.shuffle(shuffled)
    assert makespan(shuffled, workers) == near(makespan(seconds, workers))


def test_one_worker_does_one_job_after_the_other_and_none_is_started_for_nothing() -> None:
    assert makespan([3.0, 1.0, 2.0], 1, start=5.0) == 11.0
    assert makespan([], 4, start=5.0) == 0.0
    with pytest.raises(ValueError, match="0 workers"):
        makespan([1.0], 0)


def test_the_longest_go_first() -> None:
    assert makespan([1.0, 1.0, 1.0, 1.0, 4.0], 2) == 4.0  # in the order given it would be 6


def test_few_tasks_have_several_cores_each() -> None:
    def seconds(tasks: int, workers: int = 1) -> float:
        phase = Phase("probe", (Task("t", 12.0),) * tasks, start=1.0, cores=4, processes=4)
        return phase.seconds(workers)

    assert seconds(1) == 1 + 12 / 4
    assert seconds(2) == 1 + 12 / 2
    assert seconds(4) == 1 + 12
    assert seconds(8) == 1 + 24
    assert seconds(8, workers=2) == 1 + 12
    assert seconds(8, workers=64) == 1 + 12 / 4
    phase = Phase("probe", (Task("t", 12.0),), start=1.0)
    assert phase.corrected(2.0).seconds() == 1 + 24  # start-up is not corrected


@pytest.mark.parametrize(
    ("rows", "dimension", "classes", "name"),
    [
        (40, 1280, 3, "{}.jpg"),
        (6, 4, 2, "{}"),
        (700, 512, 10, "train/class/{:06}.jpg"),
        (2000, 16, 5, "a/longer/path/to/an/image/{:06}.jpeg"),
        (300, 2048, 40, "{:04}.png"),
    ],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_an_entry_is_as_large_as_was_said(
    tmp_path: Path, rows: int, dimension: int, classes: int, name: str, multi_label: bool
) -> None:
    ids = [name.format(i) for i in range(rows)]
    names = [f"class {k}" for k in range(classes)]
    key = CacheKey.from_ingredients(
        {
            "backbone": "net",
            "recipe_version": 1,
            "preprocessing": {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            "samples": [[id_, f"{i:064x}"] for i, id_ in enumerate(ids)],
            "weights_sha256": "0" * 64,
        }
    )
    metadata = {
        "coordinates": {"backbone": "net", "dataset": "d", "split": "train"},
        "class_names": names,
        "multi_label": multi_label,
        "expected_rows": rows,
    }
    labels = np.zeros((rows, classes), np.int8) if multi_label else np.arange(rows) % classes
    with Store(tmp_path).writer(key, metadata) as writer:
        features = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
        writer.append(features, labels, ids, stop=rows, row_metadata={"group": [None] * rows})
        entry = writer.publish()
    (file,) = tmp_path.glob(f"entries/*/{entry.key.digest}.h5")
    said = entry_bytes(ids, dimension, names, multi_label=multi_label)
    assert said == pytest.approx(file.stat().st_size, rel=0.03)


def test_the_cache_takes_what_the_plan_says(workshop) -> None:
    workshop.images(train=40, test=20)
    study = workshop.load()
    said = estimate(plan(study)).disk.features
    backbone = plan(study).resolved.backbones[0]
    for planned in plan(study).to_run("extract"):  # with features as wide as the network's
        store_features(planned.job, backbone.dimension)
    taken = sum(path.stat().st_size for path in features_folder().rglob("*.h5"))
    assert said == pytest.approx(taken, rel=0.03)
    assert estimate(plan(study)).disk.features == 0  # what is there is not written again


def test_results_take_what_the_plan_says(workshop) -> None:
    """Record, scores of 300 test images, coefficients."""
    workshop.images(classes=("blue", "green", "red"), test=100)
    study = workshop.load()
    current = plan(study)
    said = estimate(current, stages=("probe",)).disk.results
    for planned in current.to_run("extract"):
        store_features(planned.job, current.resolved.backbones[0].dimension)
    run(study, ("probe",), workers=1)
    taken = sum(path.stat().st_size for path in (study.output / "results").rglob("*.*"))
    assert taken < said < 3 * taken  # "at most"
    assert estimate(plan(study)).disk.results == 0


def features_folder() -> Path:
    return Path(os.environ["PENULTIMATE_CACHE"]) / "features"


def store_features(job: Any, dimension: int) -> None:
    from pipeline.entry_facts import key_of, metadata_of

    rows = len(job.split)
    with Store(features_folder()).writer(key_of(job), {**metadata_of(job), "expected_rows": rows}) as writer:
        features = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
        none = {"group": [None] * rows}
        writer.append(features, job.split.labels, list(job.split.ids), stop=rows, row_metadata=none)
        writer.publish()


def test_a_disk_that_is_too_small_is_told_in_one_line(tmp_path: Path, monkeypatch) -> None:
    need = Footprint(features=3_000_000, results=1_000_000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _folder: usage._replace(free=3_500_000))
    (line,) = too_little_disk(need, tmp_path / "not" / "there", tmp_path / "out")
    assert "about 4.0 MB" in line
    assert "3.5 MB are free" in line
    assert too_little_disk(Footprint(features=3_000_000), tmp_path, tmp_path) == []


def test_a_run_warns_of_a_small_disk_before_it_starts(cached: Study, penultimate, monkeypatch) -> None:
    usage = shutil.disk_usage(cached.folder)
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _folder: usage._replace(free=1))
    ran = penultimate("probe", cached.file)
    assert ran.status == 0
    lines = ran.err.splitlines()
    (warned,) = [k for k, line in enumerate(lines) if line.startswith("warning: disk: about")]
    assert warned < min(k for k, line in enumerate(lines) if line.startswith("probe/"))


@pytest.mark.parametrize("name", ["cpu-1", "cpu-64", "h200", "a100-4", "H100"])
def test_hardware_has_rates_and_says_where_they_come_from(name: str) -> None:
    found = hardware(name)
    assert found.source
    assert not found.here
    assert found.cores >= 1
    if found.gpu is not None:
        assert "not measured, from published peak rates" in found.source


@pytest.mark.parametrize("name", ["cpu", "cpu-0", "h20", "", "-", "h200-", "2", "cpu--2"])
def test_hardware_that_is_not_known_is_refused_before_anything(name: str, penultimate, workshop) -> None:
    result = penultimate("plan", workshop.study(), "--hardware", name)
    assert result.status == 2
    assert len(result.errors) == 1
    assert repr(name) in result.errors[0]


def test_more_of_anything_takes_longer() -> None:
    plain = (1000, 512, 10, 45, 5)
    for place in range(5):
        more = tuple(2 * v if k == place else v for k, v in enumerate(plain))
        assert probe_seconds(*more) > probe_seconds(*plain)
    assert decode_seconds(0.2, 224) > decode_seconds(0.1, 224) > decode_seconds(0.1, 96)
    core, gpu = hardware("cpu-1"), hardware("h200")
    cost = forward_cost("resnet50", 224)
    for training in (False, True):
        slow = core.rates("float32", on_gpu=False, training=training).image(cost)
        fast = gpu.rates("float32", on_gpu=True, training=training).image(cost)
        assert slow > fast > gpu.rates("bfloat16", on_gpu=True, training=training).image(cost)
        assert slow > core.rates("float32", on_gpu=False, training=training).image(cost.at(112))


def test_every_known_network_has_been_counted() -> None:
    assert all(forward_cost(name, lookup(name).size).counted for name in known())
    assert not forward_cost("python:own:network", 224).counted
    # As published beside the networks: multiplications in 1e9, activations in 1e6.
    assert forward_cost("resnet50", 224).gmacs == pytest.approx(4.1, rel=0.01)
    assert forward_cost("resnet50", 224).mega_activations == pytest.approx(11.1, rel=0.01)
    assert forward_cost("vgg16", 224).gmacs == pytest.approx(15.5, rel=0.01)


def test_sizes_are_read_from_a_few_heads(workshop, tmp_path: Path) -> None:
    folder = workshop.class_folders("c", count=40)
    images = sorted(folder.rglob("*.ppm"))
    assert mean_megapixels(images) == near(16 * 16 / 1e6)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"x" * 1000)
    assert mean_megapixels([broken]) == near(4000 / 1e6)
    assert mean_megapixels([tmp_path / "absent.jpg"]) == 0
    assert mean_megapixels([images[0], tmp_path / "absent.jpg"]) == near(16 * 16 / 1e6)


def test_sizes_are_guessed_from_bytes_without_pillow(workshop, monkeypatch) -> None:
    folder = workshop.class_folders("c", count=2)
    monkeypatch.setitem(sys.modules, "PIL", None)
    images = sorted(folder.rglob("*.ppm"))
    assert mean_megapixels(images) == near(4 * images[0].stat().st_size / 1e6)


def by_stage(found: Estimate) -> dict[str, int]:
    return {stage.stage: stage.jobs for stage in found.stages}


def test_what_is_not_planned_yet_is_counted_too(workshop) -> None:
    workshop.images(train=10)
    found = estimate(plan(workshop.load(PAPER)))
    assert by_stage(found) == {"extract": 2, "probe": 1, "fine-tune": 57, "join": 0}
    halving = {"fine_tune": {"budget": "paper", "search": "halving"}}
    shorter = estimate(plan(workshop.load(halving)))
    assert by_stage(shorter)["fine-tune"] == 56 + 19 + 7 + 3 + 1
    assert 3 < found.seconds / shorter.seconds < 20


def test_time_falls_with_workers_and_ends_at_the_longest_chain(workshop) -> None:
    workshop.images(train=10)
    found = estimate(plan(workshop.load(PAPER)))
    one, eight, many = found.by_workers.values()
    assert one == near(found.seconds)
    assert one / 8 <= eight < one / 4
    assert many < eight
    # A search of 56 trainings and a final one: two trainings, one after the other, are the least.
    assert many > 2 * one / 57 / found.hardware.cores


def test_a_gpu_is_faster_and_says_that_it_is_a_guess(workshop, penultimate) -> None:
    workshop.images(train=10)
    file = workshop.study(PAPER)
    here = json.loads(penultimate("plan", file, "--json").out)["estimate"]
    there = json.loads(penultimate("plan", file, "--hardware", "h200", "--json").out)["estimate"]
    assert there["seconds"] < here["seconds"] / 5
    assert there["within_factor"] == near(3.0)
    assert there["hardware"]["gpu"] == GPUS["h200"].title
    assert "not measured" in there["hardware"]["source"]
    shown = penultimate("plan", file, "--hardware", "h200").out
    assert "not measured, from published peak rates" in shown
    assert "within a factor of 3" in shown
    assert "the model against a real run" not in shown


def test_the_plan_shows_what_is_left(cached: Study, penultimate) -> None:
    shown = penultimate("plan", cached.file).out
    for part in ("this machine", "workers", "disk:", "shipped rates:", "the model against a real run:"):
        assert part in shown
    told = json.loads(penultimate("plan", cached.file, "--json").out)["estimate"]
    assert list(told["seconds_by_workers"]) == ["1", "8", "64"]
    assert [stage["stage"] for stage in told["stages"]] == ["probe", "join"]
    assert told["disk_bytes"]["total"] == sum(v for k, v in told["disk_bytes"].items() if k != "total")


def test_a_finished_study_has_nothing_left(cached: Study, penultimate) -> None:
    assert penultimate("run", cached.file, "--quiet").status == 0
    found = estimate(plan(cached))
    assert (found.seconds, found.disk.total, found.stages) == (0, 0, ())
    assert "nothing is left" in penultimate("plan", cached.file).out


def test_only_what_matches_counts(workshop) -> None:
    workshop.images()
    current = plan(workshop.load({"fine_tune": {"budget": "tiny"}}))
    assert by_stage(estimate(current, only="^probe/")) == {"probe": 1, "join": 0}
    assert by_stage(estimate(current, stages=("extract",))) == {"extract": 2}
    assert estimate(current, only="^probe/").disk.features == 0


def test_extractions_whose_weights_are_unknown_count_once_that_is_known(workshop) -> None:
    workshop.images()
    current = plan(workshop.load({"backbone": [{"name": "resnet18.a1_in1k"}]}), stages=("probe",))
    assert by_stage(estimate(current))["extract"] == 2
    assert "extract" not in by_stage(estimate(current, unknown_weights=False))


def test_probes_of_which_nothing_is_here_are_named(workshop) -> None:
    workshop.images()
    study = workshop.load()
    shutil.rmtree(workshop.folder / "colours")
    (line,) = estimate(plan(study, stages=("probe", "join"))).unknown
    assert line == "1 probes are not estimated: neither images nor features are on this machine"


def test_probes_are_estimated_from_cached_features_alone(cached: Study) -> None:
    shutil.rmtree(cached.folder / "colours")
    found = estimate(plan(cached, stages=("probe", "join")))
    assert by_stage(found) == {"probe": 1, "join": 0}
    assert found.unknown == ()


def test_the_records_of_a_study_correct_its_estimate(workshop) -> None:
    workshop.images("colours")
    workshop.images("more", classes=("blue", "red"), train=7)
    sets = [{"name": name, "source": f"csv:{name}/split.csv"} for name in ("colours", "more")]
    study = workshop.load({"dataset": sets})
    workshop.publish(study)
    before = estimate(plan(study))
    assert run(study, ("probe",), only="colours").done
    after = estimate(plan(study))
    probe = next(stage for stage in after.stages if stage.stage == "probe")
    assert probe.source.startswith("1 records of this study")
    assert probe.seconds != next(stage for stage in before.stages if stage.stage == "probe").seconds
    # Other hardware is not this machine: its records say nothing of it.
    elsewhere = estimate(plan(study), hardware("cpu-2"))
    assert {stage.source for stage in elsewhere.stages} == {"shipped"}


def test_records_of_other_machines_say_nothing(workshop, monkeypatch) -> None:
    workshop.images()
    study = workshop.load()
    workshop.publish(study)
    assert run(study, ("probe",)).done
    monkeypatch.setattr("pipeline.own_rates.host_name", lambda: "another")
    changed = workshop.load({"probe": {"folds": 3}})
    assert Ledger(changed.output).history().finished
    assert {stage.source for stage in estimate(plan(changed)).stages} == {"shipped"}


def test_a_training_corrects_the_ones_that_are_left(workshop) -> None:
    workshop.images()
    training = {"budget": "tiny", "steps": 2, "batch_size": 4, "image_size": 32}
    study = workshop.load({"from_scratch": training})
    assert run(study, ("scratch",)).done
    longer = workshop.load({"from_scratch": {**training, "steps": 8}})
    stage = next(s for s in estimate(plan(longer)).stages if s.stage == "scratch")
    assert stage.source.startswith("1 records of this study")


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=20))
def test_a_correction_gives_back_what_was_measured_in_all(pairs: list[tuple[float, float]]) -> None:
    rate = summarise(pairs)
    assert rate is not None
    assert rate.correction * sum(estimated for _, estimated in pairs) == near(sum(m for m, _ in pairs))
    assert rate.factor >= 1.25
    assert summarise([]) is None


def test_work_of_over_an_hour_is_not_started_where_nobody_can_be_asked(workshop, penultimate) -> None:
    workshop.images()
    file = workshop.study(PAPER)
    for words in (("run",), ("fine-tune",), ("run", "--json"), ("run", "--quiet")):
        result = penultimate(*words, file)
        assert result.status == 2
        (line,) = result.errors
        for part in (" h (estimate, within a factor of", "of disk", "--yes"):
            assert part in line
        assert workshop.is_untouched()
    # What is small about the same study is not asked about.
    assert penultimate("extract", file).status == 0


def test_yes_answers_and_a_small_study_is_not_asked_about(cached: Study, penultimate, monkeypatch) -> None:
    monkeypatch.setattr(consent, "ASK_SECONDS", 0.0)
    refused = penultimate("probe", cached.file)
    assert refused.status == 2
    assert not (cached.output / "results").exists()
    agreed = penultimate("probe", cached.file, "--yes", "--json")
    assert agreed.status == 0
    told = json.loads(agreed.out)
    assert told["done"]
    assert told["estimate"]["seconds"] > 0
    # Nothing is left now, so nothing is asked.
    assert penultimate("probe", cached.file).status == 0


class Terminal(io.StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 2), ("\n", 2), ("", 4)])
def test_a_terminal_is_asked_once(cached: Study, penultimate, monkeypatch, answer: str, status: int) -> None:
    monkeypatch.setattr(consent, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = penultimate("run", cached.file)
    assert result.status == status
    assert result.err.count("start [y/N]") == 1
    assert "this takes about" in result.err
    assert (cached.output / "results").exists() == (status == 0)


def test_a_program_is_never_asked(cached: Study, monkeypatch) -> None:
    monkeypatch.setattr(consent, "ASK_SECONDS", 0.0)
    assert run(cached, ("probe",)).done


def test_a_split_is_looked_at_once(workshop, monkeypatch) -> None:
    from pipeline import image_sizes

    looked: list[int] = []
    monkeypatch.setattr(image_sizes, "mean_megapixels", lambda paths: looked.append(len(paths)) or 0.01)
    sizes = image_sizes.ImageSizes()
    split = Split("train", ("a", "b"), (Path("a"), Path("b")), np.zeros(2, np.int64))
    assert [sizes.megapixels("d", split) for _ in range(3)] == [0.01] * 3
    assert looked == [2]
