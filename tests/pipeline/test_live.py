"""What trainings in worker processes are doing is told while they run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import live
from pipeline.jobs import TrainJob
from pipeline.live import last_points, line_of, told
from pipeline.plan import plan
from pipeline.work_train import training_folder

POINT = {"step": 1, "loss": 0.25, "learning_rate": 0.01, "images_per_second": 8.0}


def trainings(workshop: Any, **table: Any) -> tuple[list[TrainJob], Path]:
    """The grid points of a study that were not run yet."""
    workshop.images()
    wanted = {"steps": 4, "batch_size": 16, "learning_rates": [0.01, 0.1], "weight_decays": [0.0]}
    study = workshop.load({"fine_tune": {**wanted, **table}, "probe": {"enabled": False}})
    jobs = [planned.job for planned in plan(study).jobs]
    return [job for job in jobs if isinstance(job, TrainJob)], study.output


def test_a_line_has_step_loss_newest_metric_speed_and_time_left(workshop) -> None:
    (job, _), output = trainings(workshop)
    folder = training_folder(job, output)
    assert line_of(job, folder) == ""
    folder.mkdir(parents=True)
    early, late = {**POINT, "step": 0, "value": 0.75}, {**POINT, "value": None}
    (folder / "curve.jsonl").write_text(f'{json.dumps(early)}\n{json.dumps(late)}\n{{"step": 2, "lo')
    assert line_of(job, folder) == (
        f"{job.name.partition('/')[2]} 2/4 loss 0.25, top_1 75.0 %, 8 images/s, 0:04 left"
    )


@pytest.mark.parametrize("content", ["", "\n", "[]\n", '{"step": "one", "loss": 1}\n', "\xff\n"])
def test_a_curve_of_anything_is_no_point(tmp_path: Path, content: str) -> None:
    (tmp_path / "curve.jsonl").write_text(content, encoding="latin-1")
    assert last_points(tmp_path) == []


def test_only_trainings_under_way_are_told_of(workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.005)
    (first, second), output = trainings(workshop)
    for job in (first, second):
        training_folder(job, output).mkdir(parents=True)
    done: set[str] = set()
    lines: list[str] = []
    with told([first, second], output, done, lines.append):
        (training_folder(first, output) / "curve.jsonl").write_text(json.dumps(POINT) + "\n")
        wait_for(lambda: any("lr=0.01" in line for line in lines))
        assert not any("lr=0.1," in line for line in lines)
        done.add(first.name)
        (training_folder(second, output) / "curve.jsonl").write_text(json.dumps(POINT) + "\n")
        wait_for(lambda: lines[-1].count("lr=") == 1 and "lr=0.1," in lines[-1])
    count = len(lines)
    time.sleep(0.03)
    assert len(lines) == count


@pytest.mark.slow
def test_trainings_in_workers_are_heard_of(workshop, penultimate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command: a line with both grid points' progress stands in a log without a terminal."""
    monkeypatch.setattr("pipeline.progress.LOG_SECONDS", 0.0)
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.01)
    trainings(workshop, steps=60, device="cpu", image_size=32)
    result = penultimate("fine-tune", workshop.folder / "study.toml", "--jobs", 2)
    assert result.status == 0
    assert any("images/s" in line and " left" in line and "loss" in line for line in result.err.splitlines())


def wait_for(condition: Any) -> None:
    """Wait until something is so."""
    patience = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.005)
