"""The comparison of schedule lengths, from the study file to its figure."""

from __future__ import annotations

import csv
import json
import math
from typing import Any

import pytest

from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.findings import PartRow
from pipeline.jobs import Part, Planned, TrainJob
from pipeline.join_convergence import convergence_findings
from pipeline.plan import plan
from pipeline.run import run
from tests.pipeline.made_scores import made_score

LENGTHS: dict[str, Any] = {"fine_tune_steps": [1, 3], "from_scratch_steps": [4, 2]}
TRAINING: dict[str, Any] = {"budget": "tiny", "batch_size": 4, "image_size": 32}


def parts(study: Study) -> list[Planned]:
    return [planned for planned in plan(study).jobs if planned.part is not None]


def test_every_length_is_a_training_of_its_own(workshop) -> None:
    workshop.images()
    regimes = {"fine_tune": TRAINING, "from_scratch": TRAINING}
    found = parts(workshop.load({"convergence": LENGTHS, **regimes}))
    jobs = [planned.job for planned in found]
    assert [job.recipe.steps for job in jobs if isinstance(job, TrainJob)] == [1, 3, 2, 4]
    assert [planned.name.split("/")[2] for planned in found] == [f"colours,length={n}" for n in (1, 3, 2, 4)]
    assert all(isinstance(job, TrainJob) and job.score_on == "test" for job in jobs)


def test_a_data_set_that_is_named_twice_is_refused(workshop) -> None:
    workshop.images()
    with pytest.raises(StudyError, match="names one twice"):
        workshop.load({"convergence": {**LENGTHS, "datasets": ["colours", "colours"]}})


def test_every_length_chooses_its_own_grid_point(workshop) -> None:
    workshop.images()
    table = {**TRAINING, "learning_rates": [0.01, 0.1], "validation_fraction": 0.4}
    found = parts(workshop.load({"convergence": LENGTHS, "fine_tune": table}))
    searched = [p.job for p in found if isinstance(p.job, TrainJob) and p.job.score_on == "validation"]
    assert [(job.recipe.steps, job.learning_rate) for job in searched] == [
        (1, 0.01),
        (1, 0.1),
        (3, 0.01),
        (3, 0.1),
    ]
    assert [p.why for p in found if p.state == "waiting"] == ["2 of 2 grid points are left"] * 2


def test_a_study_is_run_joined_and_then_done(workshop) -> None:
    workshop.images()
    study = workshop.load(
        {"convergence": LENGTHS, "from_scratch": {**TRAINING, "steps": 1}, "probe": {"enabled": False}}
    )
    outcome = run(study, stages=("scratch", "join"), workers=1)
    assert not outcome.failed
    with (study.output / "convergence.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["steps"], row["regime"], row["status"]) for row in rows] == [
        ("2", "from_scratch", "complete"), ("4", "from_scratch", "complete"),
    ]  # fmt: skip
    assert (study.output / "figures" / "convergence.pdf").is_file()
    assert outcome.joined is not None
    assert outcome.joined.findings[0].startswith(
        "test_resnet.r160_in1k: training from scratch comes within 90 %"
    )
    assert "## Other experiments\n\n- test" in (study.output / "report.md").read_text(encoding="utf-8")
    scores = (study.output / "scores.csv").read_text(encoding="utf-8")
    assert "length=" not in scores
    assert run(study, stages=("scratch", "join"), workers=1).nothing_to_do


@pytest.fixture
def curves(workshop) -> Study:
    """A study whose tables are read; its scores are made up."""
    workshop.images()
    return workshop.load({"convergence": {}, "fine_tune": {}, "from_scratch": {}})


def rows(regime: str, curve: dict[int, float], **fields: Any) -> list[PartRow]:
    return [
        PartRow(Part("convergence", steps=n), made_score(regime, **fields), None, y) for n, y in curve.items()
    ]


def test_thresholds_censoring_and_speed_up_are_the_protocols(curves: Study) -> None:
    """Two data sets with known answers: 10 and 100 steps against 1000 and 100."""
    margin = -math.log(0.9)
    made = [
        *rows("fine_tune", {1: 0.0, 10: 2.0 - margin, 100: 2.0, 1000: 1.9}, dataset="a"),
        *rows("fine_tune", {1: 0.0, 10: 1.0, 100: 2.0, 1000: 1.0}, dataset="b"),
        *rows("from_scratch", {1: 0.0, 100: 0.5, 1000: 1.0}, dataset="a"),
        *rows("from_scratch", {1: 0.0, 100: 1.0, 1000: 0.5}, dataset="b"),
    ]
    found = json.loads(convergence_findings(made, curves, draw=False).files["convergence.json"])
    reached = {(c["dataset"], c["regime"]): c["curve"]["reached"] for c in found["cells"]}
    assert {key: one["steps"] for key, one in reached.items()} == {
        ("a", "fine_tune"): 10, ("b", "fine_tune"): 100, ("a", "from_scratch"): 1000, ("b", "from_scratch"): 100,
    }  # fmt: skip
    assert [key for key, one in reached.items() if one["censored"]] == [("a", "from_scratch")]
    # Between 100 (0.5) and 1000 (1.0) the line in ln(steps) meets 1.0 - margin.
    assert reached["a", "from_scratch"]["interpolated"] == pytest.approx(100 * 10 ** ((0.5 - margin) / 0.5))
    assert found["speed_up"]["net"]["ratio_of_means"] == pytest.approx(550 / 55)
    assert reached["a", "fine_tune"]["epochs"] == pytest.approx(10 * 64 / 10)


def test_sentences_say_at_least_where_the_longest_is_the_best(curves: Study) -> None:
    made = [*rows("fine_tune", {1: 0.0, 10: 1.0, 100: 0.9}), *rows("from_scratch", {10: 0.0, 100: 1.0})]
    lines = convergence_findings(made, curves, draw=False).lines
    assert lines[0].startswith(
        "net: fine-tuning comes within 90 % of its best odds after 10 steps (64 epochs)"
    )
    assert "after at least 100 steps" in lines[1]
    assert lines[2] == "net: from scratch takes at least 10 times as many steps as fine-tuning"


def test_where_both_still_rise_no_ratio_is_told(curves: Study) -> None:
    made = [*rows("fine_tune", {1: 0.0, 10: 1.0}), *rows("from_scratch", {10: 0.0, 100: 1.0})]
    lines = convergence_findings(made, curves, draw=False).lines
    assert (
        lines[2]
        == "net: how many times as many steps scratch takes is not known: both still rise at their longest"
    )
    early = [*rows("fine_tune", {1: 0.0, 10: 1.0}), *rows("from_scratch", {10: 0.0, 100: 1.0, 1000: 0.9})]
    assert "from scratch takes at most 10 times" in convergence_findings(early, curves, draw=False).lines[2]


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"convergence": {}}, "convergence: nothing is trained; add [fine_tune], [from_scratch] or both"),
        (
            {"convergence": {"fine_tune_steps": [5]}, "fine_tune": {}},
            "holds one length; a comparison needs two",
        ),
        (
            {"convergence": {"datasets": ["colour"]}, "fine_tune": {}},
            "no data set 'colour'; did you mean 'colours'",
        ),
        (
            {"convergence": {"from_scratch_steps": [5, 5]}, "fine_tune": {}},
            "steps [5, 5] names one twice",
        ),
    ],
)
def test_mistakes_are_one_line(workshop, tables: dict[str, Any], line: str) -> None:
    workshop.images()
    with pytest.raises(StudyError) as caught:
        workshop.load(tables)
    assert len(caught.value.mistakes) == 1
    assert line in caught.value.mistakes[0]
