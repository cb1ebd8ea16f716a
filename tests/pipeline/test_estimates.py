"""Estimates: the simulation, the figures for disk, what is counted, what is asked, what is told."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Study
from pipeline.estimates import Estimate, estimate
from pipeline.image_sizes import mean_megapixels
from pipeline.ledger import Ledger
from pipeline.own_rates import summarise
from pipeline.plan import plan
from pipeline.rates import GPUS, decode_seconds, hardware, probe_seconds
from pipeline.run import run
from stages.backbones import known, lookup
from stages.costs import forward_cost
from stages.records import Split

PAPER = {"fine_tune": {"budget": "paper"}}


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


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


def test_a_split_is_looked_at_once(workshop, monkeypatch) -> None:
    from pipeline import image_sizes

    looked: list[int] = []
    monkeypatch.setattr(image_sizes, "mean_megapixels", lambda paths: looked.append(len(paths)) or 0.01)
    sizes = image_sizes.ImageSizes()
    split = Split("train", ("a", "b"), (Path("a"), Path("b")), np.zeros(2, np.int64))
    assert [sizes.megapixels("d", split) for _ in range(3)] == [0.01] * 3
    assert looked == [2]
