"""What a study says of trainings: wrong input is told before anything starts, the rest reaches the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from cache import CacheWriteError
from pipeline.budgets import RECIPE_FIELDS
from pipeline.jobs import TrainJob
from pipeline.join_rows import refuse_contradictions, score_rows
from pipeline.ledger import Ledger
from pipeline.place import Place
from pipeline.plan import plan
from pipeline.training_recipe import train_recipe
from pipeline.work_train import AGAIN, train
from stages.errors import UnreadFileError
from stages.records import WITHOUT_EFFECT, TrainRecipe

TRAINING = {"budget": "tiny", "steps": 3, "batch_size": 4, "image_size": 32, "device": "cpu"}


def trainings(workshop: Any, **settings: Any) -> list[TrainJob]:
    """The trainings that a study asks for."""
    study = workshop.load({"fine_tune": {**TRAINING, **settings}, "probe": {"enabled": False}})
    return [p.job for p in plan(study).of("fine-tune") if isinstance(p.job, TrainJob)]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"momentum": 1.0}, "fine_tune.momentum"),
        ({"momentum": -0.1}, "fine_tune.momentum"),
        ({"batch_norm_momentum": 0.0}, "fine_tune.batch_norm_momentum"),
        ({"batch_norm_momentum": 1.1}, "fine_tune.batch_norm_momentum"),
        ({"dropout": 1.0}, "fine_tune.dropout"),
        ({"label_smoothing": -0.1}, "fine_tune.label_smoothing"),
        ({"classifier_std": -1.0}, "fine_tune.classifier_std"),
        ({"image_memory": -1}, "fine_tune.image_memory"),
        ({"checkpoint_minutes": -1.0}, "fine_tune.checkpoint_minutes"),
        ({"decay_everything": "sometimes"}, "fine_tune.decay_everything"),
        ({"crop_scale": [0.5, 2.0]}, "no crop keeps more than 1"),
        ({"seeds": [-1]}, "fine_tune.seeds"),
        ({"seeds": [2**63 - 1, 2**63]}, "fine_tune.seeds"),
        ({"seeds": [True]}, "fine_tune.seeds: true is no number"),
        ({"steps": True}, "fine_tune.steps: true is no number"),
        ({"batch_size": "6"}, 'fine_tune.batch_size: "6" is no number'),
        ({"learning_rates": ["0.1"]}, 'fine_tune.learning_rates: "0.1" is no number'),
        ({"learning_rates": True}, "fine_tune.learning_rates: true is no number"),
        ({"learning_rates": [1e-320]}, "learning_rates holds 9.99989e-321; weight decay is divided by it"),
        ({"classifier_std": 1e308}, "fine_tune.classifier_std"),
        ({"device": "cpuu"}, "fine_tune.device: 'cpuu' is no device"),
        ({"device": ""}, "fine_tune.device: '' is no device"),
        ({"device": "meta"}, "fine_tune.device: 'meta' is no device"),
        ({"device": "cuda:99"}, "fine_tune: device 'cuda:99' asked for, but torch sees"),
        ({"device": "xpu"}, "fine_tune: device 'xpu' asked for, but torch computes on none here"),
        ({"precision": "float16"}, "float16"),
        ({"nesterov": True}, "fine_tune.nesterov: unknown key"),
        ({"optimizer": "adam"}, "fine_tune.optimizer: unknown key"),
    ],
)
def test_a_setting_out_of_range_is_an_error_of_the_study(
    workshop, penultimate, settings: dict[str, Any], found: str
) -> None:
    workshop.images()
    result = penultimate("fine-tune", workshop.study({"fine_tune": {**TRAINING, **settings}}))
    assert result.status == 2
    assert len(result.errors) == 1
    assert found in result.errors[0]
    assert workshop.is_untouched()


def test_every_setting_of_a_recipe_can_be_said_in_a_study(workshop) -> None:
    assert set(RECIPE_FIELDS) == {field.name for field in fields(TrainRecipe)}
    workshop.images()
    told = {
        "momentum": 0.8, "batch_norm_momentum": 0.2, "decay_everything": True, "dropout": 0.1,
        "label_smoothing": 0.2, "classifier_std": 0.0, "validation_curve": False, "image_memory": 7,
        "tensorboard": True,
    }  # fmt: skip
    (job,) = trainings(workshop, **told, checkpoint_minutes=0.5, keep_weights=True)
    assert {name: getattr(job.recipe, name) for name in told} == told
    assert (job.checkpoint_minutes, job.keep_weights) == (0.5, True)
    assert not set(job.spec["training"]) & set(WITHOUT_EFFECT)


def test_what_changes_no_result_makes_no_result_stale(workshop) -> None:
    workshop.images()
    (plain,), (other,) = (
        trainings(workshop, **more)
        for more in (
            {},
            {"image_memory": 0, "checkpoint_minutes": 1.0, "keep_weights": True, "num_workers": 1},
        )
    )
    (smoothed,) = trainings(workshop, label_smoothing=0.1)
    assert plain.spec == other.spec
    assert plain.spec != smoothed.spec


def test_a_change_of_the_decay_of_attention_makes_no_other_training_stale(workshop) -> None:
    workshop.images()
    (job,) = trainings(workshop, weight_decays=[1e-4])
    assert job.spec["recipe"] == 1
    vit = "torchvision/vit_b_16"
    assert [train_recipe(vit, c) for c in (0.0, 1e-4)] == [1, 2]
    assert train_recipe(vit, 1e-4, decay_everything=True) == 1


def test_weights_of_final_trainings_alone_are_kept(workshop) -> None:
    workshop.images()
    grid = trainings(workshop, learning_rates=[0.1, 0.01], keep_weights=True)
    assert len(grid) == 2
    assert not any(job.keep_weights for job in grid)


def test_an_input_size_that_a_backbone_cannot_take_is_told_beforehand(workshop, penultimate) -> None:
    workshop.images()
    study = workshop.study(
        {
            "backbone": [{"name": "test_vit.r160_in1k", "weights": "random"}],
            "fine_tune": {**TRAINING, "image_size": 64},
        }
    )
    result = penultimate("fine-tune", study)
    assert result.status == 2
    assert result.errors == [
        "fine_tune.image_size 64: test_vit.r160_in1k takes inputs of 160 pixels only; leave image_size out"
    ]


def test_a_grid_needs_images_to_choose_on(workshop, penultimate) -> None:
    workshop.images(train=1, test=1)
    grid = {**TRAINING, "learning_rates": [0.1, 0.01]}
    result = penultimate("fine-tune", workshop.study({"fine_tune": grid}))
    assert result.status == 2
    assert len(result.errors) == 1
    assert "to spare as validation" in result.errors[0]
    assert penultimate("fine-tune", workshop.study({"fine_tune": TRAINING})).status == 0
    (job,) = trainings(workshop, learning_rates=[0.01, 0.01], weight_decays=[0.0, 0.0])
    assert "validation" not in job.dataset.splits


def test_a_batch_of_one_image_is_told_of_where_a_batch_norm_needs_two(workshop, penultimate) -> None:
    """At 32 pixels the last layers see one place of an image."""
    workshop.images()
    alone = {**TRAINING, "batch_size": 3, "micro_batch_size": 2}
    result = penultimate(
        "fine-tune", workshop.study({"fine_tune": alone, "probe": {"enabled": False}}), "--jobs", 1
    )
    assert result.status == 1
    assert "a micro-batch of one image, and the batch norm of this network needs two" in result.err


def test_label_smoothing_of_a_multi_label_set_is_told_beforehand(workshop, penultimate) -> None:
    csv = workshop.images()
    lines = csv.read_text(encoding="utf-8").replace(",red,", ",red|warm,").replace(",green,", ",green|cold,")
    csv.write_text(lines, encoding="utf-8")
    smoothed = {**TRAINING, "label_smoothing": 0.1}
    result = penultimate("fine-tune", workshop.study({"fine_tune": smoothed}))
    assert result.status == 2
    assert len(result.errors) == 1
    assert "fine_tune.label_smoothing 0.1 means nothing for the multi-label set 'colours'" in result.errors[0]


def test_weights_that_are_asked_for_later_are_trained_for(workshop, penultimate) -> None:
    """The result counts meanwhile, and the new one stands in its place even where it came out otherwise."""
    workshop.images()
    tables = {"fine_tune": TRAINING, "probe": {"enabled": False}}
    assert penultimate("fine-tune", workshop.study(tables)).status == 0
    tables["fine_tune"] = {**TRAINING, "keep_weights": True}
    planned = plan(study := workshop.load(tables))
    assert [(job.state, job.why) for job in planned.of("fine-tune")] == [
        ("missing", "its weights were not kept")
    ]
    assert [score.status for score, _ in score_rows(planned)] == ["complete"]
    path = workshop.study(tables)
    assert penultimate("fine-tune", path, "--jobs", 1).status == 0
    assert len(list((workshop.folder / "out" / "training").glob("*/*/weights.safetensors"))) == 1
    first, second = Ledger(study.output).records()
    assert first.result["value"] == second.result["value"]
    assert (AGAIN in first.provenance, AGAIN in second.provenance) == (False, True)
    refuse_contradictions(plan(study))
    assert plan(study).of("fine-tune")[0].state == "done"


def test_a_job_that_another_process_trained_meanwhile_is_not_trained_again(workshop, tmp_path: Path) -> None:
    workshop.images()
    (job,) = trainings(workshop)
    place = Place(tmp_path / "cache", tmp_path / "out")
    assert "top_1" in train(job, place, None).line
    assert "another process" in train(job, place, None).line
    assert len(Ledger(place.output).records()) == 1
    changed = replace(job, spec={**job.spec, "recipe": 0})
    assert "top_1" in train(changed, place, None).line
    assert len(Ledger(place.output).records()) == 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_that_changes_while_a_training_waits_is_not_trained_on(
    workshop, tmp_path: Path, split: Any
) -> None:
    workshop.images()
    (job,) = trainings(workshop)
    changed, *_, other = job.dataset.splits[split].paths
    changed.write_bytes(other.read_bytes())
    place = Place(tmp_path / "cache", tmp_path / "out")
    with pytest.raises(UnreadFileError, match=f"{changed.name}: changed since it was hashed"):
        train(job, place, None)
    assert not Ledger(place.output).records()


def test_a_checkpoint_stays_until_the_result_is_recorded(workshop, tmp_path: Path) -> None:
    workshop.images()
    (job,) = trainings(workshop, checkpoint_minutes=0.0)
    place = Place(tmp_path / "cache", tmp_path / "out")
    obstacle = place.output / "results" / "fine_tune"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    with pytest.raises(CacheWriteError):
        train(job, place, None)
    (checkpoint,) = (place.output / "training").glob("*/*/checkpoint.safetensors")
    obstacle.unlink()
    train(job, place, None)
    assert not checkpoint.exists()
    (record,) = Ledger(place.output).records()
    assert record.provenance["resumed_from"] == [3]


WORKERS = """
import os, signal, sys, time
from pathlib import Path
from pipeline.executors import run_jobs
from saving_jobs import save

signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
try:
    for job, outcome in run_jobs(save, range(6), workers=2):
        pass
except KeyboardInterrupt:
    raise SystemExit(4)
"""
SAVING = """
import os, time
from pathlib import Path

def save(n):
    here = Path({folder!r})
    try:
        (here / f"begun{{n}}").write_text(str(os.getpid()))
        time.sleep(120)
    except KeyboardInterrupt:
        time.sleep(0.5)
        (here / f"saved{{n}}").touch()
        raise
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched in /proc")
def test_workers_save_before_they_end(tmp_path: Path, number: signal.Signals) -> None:
    """Asked or orphaned: the jobs under way save, no further one begins, and no process is left."""
    (tmp_path / "saving_jobs.py").write_text(
        textwrap.dedent(SAVING).format(folder=str(tmp_path)), encoding="utf-8"
    )
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen([sys.executable, "-c", WORKERS], env=environment)
    try:
        wait_for(lambda: len(list(tmp_path.glob("begun*"))) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("begun*") if path.read_text()]
        process.send_signal(number)
        assert process.wait(timeout=60) == (4 if number == signal.SIGTERM else -number)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    finally:
        process.kill()
    assert sorted(path.name for path in tmp_path.glob("saved*")) == ["saved0", "saved1"]
    assert sorted(path.name for path in tmp_path.glob("begun*")) == ["begun0", "begun1"]


def wait_for(condition: Any) -> None:
    """Wait until something is so."""
    patience = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_records_say_how_they_were_computed(workshop, penultimate) -> None:
    workshop.images()
    study = workshop.study({"fine_tune": TRAINING, "probe": {"enabled": False}})
    assert penultimate("fine-tune", study, "--jobs", 1).status == 0
    (path,) = (workshop.folder / "out" / "results").glob("*/*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["provenance"]["resumed_from"] == []
    assert record["provenance"]["threads"] >= 1


def test_a_job_alone_has_the_threads_that_it_has_among_its_siblings(workshop, penultimate) -> None:
    """Other threads give other bits: what is left of an interrupted grid must not get more of them."""
    workshop.images()
    grid = {**TRAINING, "learning_rates": [0.1, 0.01]}
    study = workshop.study({"fine_tune": grid, "probe": {"enabled": False}})
    assert penultimate("fine-tune", study, "--only", "lr=0.1,").status == 0
    (path,) = (workshop.folder / "out" / "results").glob("*/*.json")
    cores = len(os.sched_getaffinity(0))
    threads = json.loads(path.read_text(encoding="utf-8"))["provenance"]["threads"]
    assert threads == max(1, cores // min(cores, 2))
