"""The grid of a training as a table: done, under way, missing."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from pipeline.cell_details import cell_details
from pipeline.config import Study
from pipeline.grids import grid_tables, grids_text
from pipeline.jobs import TrainJob
from pipeline.join_rows import score_rows, selection_notes
from pipeline.join_stamp import _made_from
from pipeline.ledger import Ledger
from pipeline.place import Place
from pipeline.plan import plan
from pipeline.run import run
from pipeline.show import plan_text
from pipeline.work import record_failure
from pipeline.work_train import training_folder
from stages.train import checkpoint

NET = "test_resnet.r160_in1k"
GRID = {
    "budget": "tiny", "steps": 2, "batch_size": 4, "image_size": 32, "device": "cpu",
    "learning_rates": [0.01, 0.1], "weight_decays": [0.0, 1e-4],
}  # fmt: skip


def test_a_grid_shows_what_is_done_and_what_is_under_way(workshop, penultimate) -> None:
    workshop.images()
    study = workshop.load({"fine_tune": GRID, "probe": {"enabled": False}})
    assert penultimate("status", study.folder / "study.toml").out.count("  c = ") == 2
    done = run(study, ("fine-tune",), only=r"lr=0\.01", workers=1)
    assert len(done.done) == 2
    waiting = next(
        p.job for p in plan(study).jobs if isinstance(p.job, TrainJob) and "lr=0.1,wd=0.0," in p.name
    )
    folder = training_folder(waiting, study.output)
    folder.mkdir(parents=True)
    line = '{"step": 0, "loss": 1.0, "learning_rate": 0.1, "images_per_second": 9.0}'
    (folder / "curve.jsonl").write_text(f'{line}\n{{"step": 1, "lo', encoding="utf-8")

    (table,) = grid_tables(plan(study))
    assert table["cell"] == f"fine_tune/{NET}/colours, 2 steps"
    found = {(p["learning_rate"], p["weight_decay"]): p for p in table["points"]}
    assert {key: p["state"] for key, p in found.items()} == {
        (0.01, 0.0): "done", (0.01, 1e-4): "done", (0.1, 0.0): "running", (0.1, 1e-4): "missing",
    }  # fmt: skip
    assert found[0.1, 0.0]["steps"] == 1
    assert 0 <= found[0.01, 0.0]["value"] <= 1

    text = grids_text(plan(study))
    assert "2 of 4 grid points" in text
    assert "(50 % of steps)" in text
    assert [word for word in ("lr 0.01", "lr 0.1", "c = 0", "c = 0.0001") if word not in text] == []
    result = penultimate("status", study.folder / "study.toml", "--json")
    assert json.loads(result.out)["grids"][0]["points"] == table["points"]


def test_a_point_whose_last_attempt_failed_is_not_under_way_until_it_is_tried_again(workshop) -> None:
    workshop.images()
    study = workshop.load({"fine_tune": GRID, "probe": {"enabled": False}})
    job = next(p.job for p in plan(study).jobs if isinstance(p.job, TrainJob))
    curve = training_folder(job, study.output) / "curve.jsonl"
    curve.parent.mkdir(parents=True)
    line = '{"step": 0, "loss": 1.0, "learning_rate": 0.1, "images_per_second": 9.0}\n'
    curve.write_text(line, encoding="utf-8")
    os.utime(curve, ns=(1, 1))
    record_failure(job, Place(study.folder / "cache", study.output), "no reason", study.folder / "log")
    assert grid_tables(plan(study))[0]["points"][0]["state"] == "failed"
    later = time.time_ns() + 10**9
    os.utime(curve, ns=(later, later))
    assert grid_tables(plan(study))[0]["points"][0]["state"] == "running"


def test_a_training_with_a_checkpoint_is_said_to_go_on(workshop) -> None:
    workshop.images()
    study = workshop.load({"fine_tune": GRID, "probe": {"enabled": False}})
    job = next(p.job for p in plan(study).jobs if isinstance(p.job, TrainJob))
    there = training_folder(job, study.output) / checkpoint.FILE
    there.parent.mkdir(parents=True)
    for step, why in ((1, "not finished: goes on from its checkpoint, at step 1 of 2"), ("x", "not run yet")):
        state = json.dumps({"progress": {"step": step}})
        header = json.dumps({"__metadata__": {"state": state}}).encode()
        there.write_bytes(len(header).to_bytes(8, "little") + header)
        assert next(p.why for p in plan(study).jobs if p.name == job.name) == why
    assert "c: weight decay, before it is divided by lr" in grids_text(plan(study))


def test_the_notes_of_a_choice_are_those_of_the_grid_as_it_is(workshop) -> None:
    """A final training is not done again when its grid grows; what is said of the choice changes all the same."""
    workshop.images()
    grid = {**GRID, "learning_rates": [0.01, 0.02], "weight_decays": [0.0]}
    study = workshop.load({"fine_tune": grid, "probe": {"enabled": False}})
    pretend(study, {0.01: 0.4, 0.02: 0.5})
    before, digest = details_of(study)
    assert before["warnings"] == [
        "the best learning_rate 0.02 is the largest of its grid: widen the grid",
        "own",
    ]

    wider = workshop.load(
        {"fine_tune": {**grid, "learning_rates": [0.01, 0.02, 0.1]}, "probe": {"enabled": False}}
    )
    pretend(wider, {0.1: None})
    after, other_digest = details_of(wider)
    assert after["warnings"] == ["1 of 3 grid points diverged", "own"]
    assert after["record, sha256"] == before["record, sha256"]
    assert digest != other_digest


def pretend(study: Study, values: dict[float, float | None]) -> None:
    """Record trainings with these values by their learning rate, then the final one where it is not there."""
    for _ in range(2):
        for planned in plan(study).to_run("fine-tune"):
            job = planned.job
            assert isinstance(job, TrainJob)
            value = 0.6 if job.columns else values[job.learning_rate]
            columns = {**job.columns, "metric": "top_1", "value": value} if job.columns else {}
            result = {"value": value, "steps": 2, "warnings": ["own"]}
            Ledger(study.output).write(
                "fine_tune", job.name, status="diverged" if value is None else "complete", spec=job.spec,
                columns=columns, provenance={}, result=result,
            )  # fmt: skip


def details_of(study: Study) -> tuple[dict[str, Any], str]:
    """What the report says of the only cell, and what the join is made from."""
    planned = plan(study)
    ((score, record),) = rows = score_rows(planned)
    return cell_details(score, record, "", selection_notes(planned)[score.job]), _made_from(planned, rows)


def test_a_study_without_a_grid_shows_none(workshop) -> None:
    workshop.images()
    assert grids_text(plan(workshop.load({}))) == ""


def test_a_grid_too_small_to_halve_is_told(workshop) -> None:
    workshop.images()
    few = {**GRID, "search": "halving", "learning_rates": [0.001, 0.01, 0.1], "weight_decays": 0.0}
    said = "fine_tune: 3 grid points and 2 steps are too few to halve by 3: all are trained at full length"
    small = plan(workshop.load({"fine_tune": few}))
    assert said in small.notes
    assert f"\nnote: {said}" in plan_text(small, every_job=True)
    for halved in ({"steps": 3, "weight_decays": [0.0, 1e-4]}, {"search": "grid"}):
        assert not any(
            "too few to halve" in n for n in plan(workshop.load({"fine_tune": {**few, **halved}})).notes
        )


def test_halving_trains_the_best_longer_and_scores_test_once(workshop) -> None:
    """9 points for 1 step, 3 for 3, and the choice among the last; then one final training."""
    workshop.images()
    wide = {**GRID, "steps": 9, "learning_rates": [0.001, 0.01, 0.1], "weight_decays": [0.0, 1e-5, 1e-4]}
    study = workshop.load({"fine_tune": {**wide, "search": "halving"}, "probe": {"enabled": False}})
    first = [p for p in plan(study).jobs if p.state == "missing" and p.stage == "fine-tune"]
    assert len(first) == 9
    assert all(p.name.endswith(",steps=3") for p in first)
    assert plan(study).jobs[-1].why == "rung 1 of 2: 9 of 9 grid points are left"

    outcome = run(study, ("fine-tune", "join"), workers=1)
    assert not outcome.failed
    assert len(outcome.done) == 9 + 3 + 1
    tables = {table["cell"].rpartition(", ")[2]: table["points"] for table in grid_tables(plan(study))}
    assert {name: len(points) for name, points in tables.items()} == {"3 steps": 9, "9 steps": 3}
    ranked = sorted(tables["3 steps"], key=lambda p: (-p["value"], p["learning_rate"], -p["weight_decay"]))
    best = {(p["learning_rate"], p["weight_decay"]) for p in ranked[:3]}
    assert {(p["learning_rate"], p["weight_decay"]) for p in tables["9 steps"]} == best
    assert any("chosen by successive halving: 9 for 3 steps, 3 for 9 steps" in w for w in outcome.warnings)
    assert run(study, ("fine-tune", "join")).nothing_to_do

    # The whole grid at full length takes over the trainings that halving made at full length.
    whole = workshop.load({"fine_tune": wide, "probe": {"enabled": False}})
    states = [p.state for p in plan(whole).jobs if ",wd=" in p.name]
    assert (states.count("done"), states.count("missing")) == (3, 6)
