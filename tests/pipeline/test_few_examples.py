"""The experiment with few examples, from the study file to its figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.feature_tables import feature_table
from pipeline.jobs import ProbeJob, TrainJob
from pipeline.join_few_examples import few_examples_findings
from pipeline.ledger import Ledger
from pipeline.plan import Plan, plan
from pipeline.run import run
from pipeline.work_probe import chosen_rows

FEW: dict[str, Any] = {"per_class": [1, 2], "repeats": 2, "validation_fraction": 0.34}
SCRATCH = {"budget": "tiny", "steps": 1, "batch_size": 4, "image_size": 32}


@pytest.fixture
def few(workshop, cached: Study) -> Study:
    """A study of two small numbers whose features are cached."""
    return workshop.load({"few_examples": FEW})


def parts(found: Plan) -> list[Any]:
    return [planned for planned in found.jobs if planned.part is not None]


def entries() -> dict[str, int]:
    return {
        str(p.relative_to(cache_root())): p.stat().st_mtime_ns for p in cache_root().glob("features/**/*.h5")
    }


def test_a_study_runs_once_and_extracts_nothing(few: Study) -> None:
    before = entries()
    outcome = run(few, stages=("probe", "join"), workers=1)
    assert sorted(name for name in outcome.done if "few=" in name) == [
        f"probe/test_resnet.r160_in1k/colours,few={n},subset={r}" for n in (1, 2) for r in (0, 1)
    ]
    assert entries() == before
    with (few.output / "few_examples.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["per_class"], row["repeat"], row["n_train"], row["status"]) for row in rows] == [
        ("1", "0", "2", "complete"), ("2", "0", "4", "complete"),
        ("1", "1", "2", "complete"), ("2", "1", "4", "complete"),
    ]  # fmt: skip
    assert (few.output / "figures" / "few_examples.png").stat().st_size > 1000
    assert "Few examples" in (few.output / "report.html").read_text(encoding="utf-8")
    assert ",few=" not in (few.output / "scores.csv").read_text(encoding="utf-8")
    assert run(few, stages=("probe", "join"), workers=1).nothing_to_do


def test_probes_and_trainings_see_the_same_rows(workshop, cached: Study) -> None:
    study = workshop.load({"few_examples": FEW, "from_scratch": SCRATCH})
    found = parts(plan(study, stages=("probe", "join")))
    probes = {p.part: p.job for p in found if isinstance(p.job, ProbeJob)}
    trainings = {p.part: p.job for p in found if isinstance(p.job, TrainJob)}
    assert set(probes) == set(trainings)
    assert len(probes) == 4
    for part, probe in probes.items():
        training = trainings[part]
        assert training.dataset.splits["train"].ids == probe.rows.train
        assert training.dataset.splits["validation"].ids == probe.rows.validation
        assert training.fit_on == ("train",)
        assert not set(probe.rows.train) & set(probe.rows.validation)


def test_a_larger_subset_contains_the_smaller_one_of_its_draw(few: Study) -> None:
    rows = {
        (p.part.per_class, p.part.repeat): set(p.job.rows.train) for p in parts(plan(few, stages=("probe",)))
    }
    assert rows[1, 0] < rows[2, 0]
    assert rows[1, 1] < rows[2, 1]


def test_the_probe_takes_the_rows_of_its_ids(few: Study) -> None:
    job = next(p.job for p in parts(plan(few, stages=("probe",))) if p.part.per_class == 2)
    whole = {split: feature_table(open_store().read(key)) for split, key in job.entries.items()}
    taken = chosen_rows(whole, job.rows)
    for split in ("train", "validation"):
        for i, id_ in enumerate(taken[split].ids):
            at = whole["train"].ids.index(id_)
            assert np.array_equal(taken[split].features[i], whole["train"].features[at])
            assert taken[split].labels[i] == whole["train"].labels[at]
    assert taken["test"] is whole["test"]


def test_without_images_the_same_subsets_are_drawn(workshop, few: Study) -> None:
    before = {p.name: p.job.spec for p in parts(plan(few, stages=("probe",)))}
    images = workshop.folder / "colours"
    images.rename(workshop.folder / "elsewhere")
    assert {p.name: p.job.spec for p in parts(plan(few, stages=("probe",)))} == before


def test_another_seed_makes_results_stale(workshop, few: Study) -> None:
    run(few, stages=("probe",), workers=1)
    again = parts(plan(workshop.load({"few_examples": {**FEW, "seed": 5}}), stages=("probe",)))
    assert "stale" in {p.state for p in again}
    assert all(p.why.startswith("changed since: rows.") for p in again if p.state == "stale")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"per_class": [1, 40]}, "40 examples a class asked for, but 2 of 2 classes have fewer"),
        ({"datasets": ["colors"]}, "few_examples.datasets[1]: the study has no data set 'colors'; did"),
        ({"per_class": True}, "few_examples.per_class: true and false are no numbers"),
        ({"datasets": ["colours", "colours"]}, "few_examples: datasets ['colours', 'colours'] names one twice"),
        ({"per_class": 3, "validation_fraction": 0.8}, "(few_examples.validation_fraction = 0.8 of train is set"),
        ({"per_class": [2, 2]}, "few_examples: per_class [2, 2] names one twice"),
        ({"largest": 1}, "few_examples: per_class goes up to 2, beyond largest = 1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_any_work(workshop, cached: Study, changes, line: str) -> None:
    with pytest.raises(StudyError) as caught:
        run(workshop.load({"few_examples": {**FEW, **changes}}))
    assert len(caught.value.mistakes) == 1
    assert line in caught.value.mistakes[0]
    assert not (workshop.folder / "out").exists()


def test_several_labels_are_refused_where_they_are_asked_for(workshop) -> None:
    images = workshop.images("scenes")
    text = images.read_text(encoding="utf-8").replace(",green,", ",green|red,", 1)
    images.write_text(text, encoding="utf-8")
    dataset = {"name": "scenes", "source": "csv:scenes/split.csv"}
    with pytest.raises(StudyError, match="scenes: an image has several labels here"):
        plan(workshop.load({"dataset": [dataset], "few_examples": {**FEW, "datasets": ["scenes"]}}))
    assert not parts(plan(workshop.load({"dataset": [dataset], "few_examples": FEW})))


def test_crossings_are_those_of_the_curves(workshop, few: Study) -> None:
    """Scores made up: the second regime overtakes the first between 2 and 4."""
    from pipeline.findings import PartRow
    from pipeline.jobs import Part
    from tests.pipeline.made_scores import made_score

    values = {"linear_probe": {1: 0.0, 2: 0.2, 4: 0.4}, "fine_tune": {1: -1.0, 2: 0.0, 4: 0.8}}
    rows = [
        PartRow(Part("few_examples", per_class=n, repeat=r), made_score(regime), None, y + 0.01 * r)
        for regime, curve in values.items()
        for n, y in curve.items()
        for r in range(3)
    ]
    assert few.few_examples is not None
    found = few_examples_findings(rows, few.few_examples, draw=False)
    cell = json.loads(found.files["few_examples.json"])["cells"][0]
    crossing = cell["crossings"][0]["examples_per_class"]
    # The difference is -0.2 at 2 and 0.4 at 4: a third of the way from ln 2 to ln 4.
    assert crossing["at"] == pytest.approx(2 * 2 ** (1 / 3))
    assert found.lines[0].startswith(
        "colours: fine-tuning overtakes the linear probe at 2.52 examples a class"
    )
    assert cell["curves"]["fine_tune"]["standard_error"][0] == pytest.approx(0.01 / 3**0.5)
    assert not [line for line in found.lines if "the same on every subset" in line]


def test_subsets_that_all_score_the_same_are_told_of(few: Study) -> None:
    """As subsets do that are the whole training set: their bars of no length would say that the draw is no matter."""
    from pipeline.findings import PartRow
    from pipeline.jobs import Part
    from tests.pipeline.made_scores import made_score

    rows = [
        PartRow(Part("few_examples", per_class=n, repeat=r), made_score("linear_probe"), None, odds)
        for n, curve in {2: (0.0, 0.1), 4: (0.4, 0.4)}.items()
        for r, odds in enumerate(curve)
    ]
    assert few.few_examples is not None
    (line,) = few_examples_findings(rows, few.few_examples, draw=False).lines
    assert line.startswith("colours: at 4 examples a class the probe scores the same on every subset")


def test_a_record_says_how_many_rows_were_used(few: Study) -> None:
    run(few, stages=("probe",), workers=1, only="few=2,subset=0")
    record = next(r for r in Ledger(few.output).records() if "few=2" in r.job)
    assert record.result["rows"] == {"train": 4, "validation": 4}
    assert record.result["selection_method"].startswith("validation")


def test_the_file_of_a_study_with_few_examples_is_read(tmp_path: Path) -> None:
    text = 'backbones = ["resnet50.a1_in1k"]\ndatasets = ["digits"]\n[study]\nname = "s"\n'
    text += "[few_examples]\nper_class = 4\n"
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    table = load_study(tmp_path / "s.toml").few_examples
    assert table is not None
    assert (table.per_class, table.repeats, table.draw, table.validation) == ((4,), 3, "nested", "full")
