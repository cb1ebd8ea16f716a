"""Source-task training, and the comparison of its settings, from the study file to the figure."""

from __future__ import annotations

import csv
import json
import tomllib
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.join_regularisation import regularisation_findings
from pipeline.ledger import Ledger
from pipeline.plan_pretrain import plan_pretrain
from pipeline.pretrain import pretrain
from pipeline.resolve import resolve
from pipeline.run import run
from stages.records import Score
from stages.report import join_scores
from tests.pipeline.made_scores import made_score

NET = "test_resnet.r160_in1k"
SETTINGS = [
    {"variant": "without-scale", "batch_norm_scale": False, "label_smoothing": 0.1},
    {"variant": "with-scale", "label_smoothing": 0.1},
]
SOURCE: dict[str, Any] = {
    "source": "colours", "setting": SETTINGS, "seeds": [0, 1], "steps": 1, "batch_size": 4, "image_size": 32,
}  # fmt: skip


@pytest.fixture
def two(workshop) -> Any:
    """A source and a target."""
    workshop.images()
    workshop.images("others", classes=("blue", "red"))
    sets = [{"name": name, "source": f"csv:{name}/split.csv"} for name in ("colours", "others")]
    return workshop, {"dataset": sets, "pretrain": SOURCE}


def test_checkpoints_become_backbones_of_a_study_that_compares_them(two, penultimate) -> None:
    workshop, tables = two
    file = workshop.study(tables)
    result = penultimate("pretrain", file, "--jobs", 1)
    assert result.status == 0, result.err
    written = workshop.folder / "study.pretrained.toml"
    assert f"next: penultimate run {written}" in result.out
    study = load_study(written)
    assert [b.label for b in study.backbone] == [
        f"{NET}@{v},seed={s}" for v in ("without-scale", "with-scale") for s in (0, 1)
    ]
    assert [d.name for d in study.dataset] == ["others"]
    assert study.regularisation is not None
    assert study.regularisation.variants == ("without-scale", "with-scale")
    records = {r.job: r for r in Ledger(load_study(file).output).records()}
    for backbone in study.backbone:
        variant, _, seed = backbone.variant.partition(",seed=")
        record = records[f"pretrain/{NET}/colours/{variant},seed={seed}"]
        assert backbone.imagenet_top1 in (record.result["value"], None)
        scales = [
            v
            for k, v in load_file(backbone.weights.removeprefix("file:")).items()
            if k.endswith("bn1.weight")
        ]
        assert scales
        fixed = all(np.array_equal(scale, np.ones_like(scale)) for scale in scales)
        assert fixed == (variant == "without-scale")
    outcome = run(study, stages=("extract", "probe", "join"), workers=1)
    assert not outcome.failed
    assert outcome.joined is not None
    assert any(line.startswith(f"{NET}, linear probe: log odds") for line in outcome.joined.findings)
    assert (study.output / "figures" / "regularisation.png").is_file()


def test_plan_and_status_tell_of_source_trainings(two, penultimate) -> None:
    workshop, tables = two
    file = workshop.study(tables)
    said = f"pretrain (by `penultimate pretrain {file}`): "
    assert f"{said}4 missing" in penultimate("plan", file).out
    next_job = f"pretrain/{NET}/colours/without-scale,seed=0"
    assert f"missing  {next_job}" in penultimate("status", file).out
    assert len(json.loads(penultimate("plan", file, "--json").out)["pretrain"]) == 4
    assert penultimate("pretrain", file, "--jobs", 1, "--quiet").status == 0
    assert f"{said}4 done" in penultimate("status", file).out
    assert {j["state"] for j in json.loads(penultimate("status", file, "--json").out)["pretrain"]} == {"done"}


def test_again_costs_nothing_and_lost_weights_are_made_again(two) -> None:
    workshop, tables = two
    study = workshop.load(tables)
    assert len(pretrain(study, workers=1).done) == 4
    again = pretrain(study, workers=1)
    assert again.done == ()
    assert len(again.checkpoints) == 4
    next((study.output / "training").rglob("weights.safetensors")).unlink()
    assert len(pretrain(study, workers=1).done) == 1


def test_without_a_table_or_a_target(two, workshop, penultimate) -> None:
    _, tables = two
    file = workshop.study({"dataset": tables["dataset"]})
    assert penultimate("pretrain", file).errors[0].startswith("the study has no [pretrain] table; add one")
    alone = workshop.load({"dataset": tables["dataset"][:1], "pretrain": {**SOURCE, "seeds": [0]}})
    outcome = pretrain(alone, workers=1)
    assert outcome.study is None
    assert [one.variant for one in outcome.checkpoints] == ["without-scale", "with-scale"]


def test_the_papers_settings_are_five_where_a_network_has_auxiliary_heads_and_four_elsewhere(two) -> None:
    workshop, tables = two
    nets = [{"name": name, "weights": "random", "size": 64} for name in ("torchvision/googlenet", "resnet18")]
    study = workshop.load({**tables, "backbone": nets, "pretrain": {"source": "colours"}})
    assert study.pretrain is not None
    jobs = [
        p.job for p in plan_pretrain(study, study.pretrain, resolve(study), Ledger(study.output).history())
    ]
    told = [
        (j.backbone.name[-9:], j.switches.batch_norm_scale, j.recipe.label_smoothing, j.recipe.dropout,
         j.switches.auxiliary_head)
        for j in jobs
    ]  # fmt: skip
    assert told == [
        ("googlenet", False, 0.1, 0.2, True),
        ("googlenet", True, 0.1, 0.2, True),
        ("googlenet", True, 0.0, 0.2, True),
        ("googlenet", True, 0.0, 0.0, True),
        ("googlenet", True, 0.0, 0.0, False),
        ("resnet18", False, 0.1, 0.2, False),
        ("resnet18", True, 0.1, 0.2, False),
        ("resnet18", True, 0.0, 0.2, False),
        ("resnet18", True, 0.0, 0.0, False),
    ]
    assert all(job.fit_on == ("train",) and job.score_on == "test" and job.keep_weights for job in jobs)


def test_another_setting_makes_a_training_stale(two) -> None:
    workshop, tables = two
    pretrain(workshop.load(tables), workers=1)
    other = [SETTINGS[0], {**SETTINGS[1], "dropout": 0.5}]
    study = workshop.load({**tables, "pretrain": {**SOURCE, "setting": other}})
    assert study.pretrain is not None
    history = Ledger(study.output).history()
    states = [p.state for p in plan_pretrain(study, study.pretrain, resolve(study), history)]
    assert states == ["done", "done", "stale", "stale"]


def scores(values: dict[tuple[str, str], float]) -> list[Score]:
    """One probe on one set; the source accuracy is 0.5 everywhere."""
    return [
        made_score("linear_probe", backbone=net, variant=variant, value=value, imagenet_top1=0.5, n_test=1000)
        for (net, variant), value in values.items()
    ]


def test_settings_are_averaged_over_seeds_with_students_interval(workshop) -> None:
    odds = {0: 0.1, 1: 0.3, 2: 0.5}
    table = join_scores(
        scores(
            {("net", "without-scale"): 0.5}
            | {("net", f"with-scale,seed={s}"): float(1 / (1 + np.exp(-x))) for s, x in odds.items()}
        )
    )
    order = workshop_order(workshop)
    found = json.loads(regularisation_findings(order, table, draw=False).files["regularisation.json"])
    after = next(s for s in found if s["setting"] == "with-scale" and s["quantity"] == "linear_probe")
    assert after["mean"] == pytest.approx(0.3)
    # t(0.975, 2) = 4.302653; sd 0.2 over sqrt(3)
    assert after["interval"] == pytest.approx([0.3 - 4.302653 * 0.2 / 3**0.5, 0.3 + 4.302653 * 0.2 / 3**0.5])
    text = regularisation_findings(order, table, draw=False).files["regularisation.csv"].decode()
    rows = list(csv.DictReader(text.splitlines()))
    assert len([row for row in rows if row["quantity"] == "linear_probe"]) == 4


def workshop_order(workshop) -> Any:
    workshop.images()
    nets = [{"name": NET, "weights": "random", "size": 32, "variant": "without-scale"}]
    return workshop.load({"backbone": nets, "regularisation": {}}).regularisation


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"pretrain": {**SOURCE, "source": "colors"}}, "pretrain.source: the study has no data set 'colors'"),
        ({"pretrain": {**SOURCE, "setting": [SETTINGS[0]] * 2}}, "names one twice"),
        ({"pretrain": {**SOURCE, "setting": [{"variant": "a", "scale": True}]}}, "setting[1].scale: unknown key"),
        (
            {"backbone": [{"name": NET, "weights": "random", "variant": "no-dropout"}], "regularisation": {}},
            f"{NET} has the variant 'no-dropout' but not the first, 'without-scale'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(two, changes: dict[str, Any], line: str) -> None:
    workshop, tables = two
    with pytest.raises(StudyError) as caught:
        workshop.load({**tables, **changes})
    assert len(caught.value.mistakes) == 1
    assert line in caught.value.mistakes[0]


def test_the_written_study_keeps_what_its_author_set(two) -> None:
    workshop, tables = two
    study: Study = workshop.load({**tables, "fine_tune": {"budget": "tiny", "steps": 7}})
    outcome = pretrain(study, workers=1)
    assert outcome.study is not None
    text = tomllib.loads(outcome.study.read_text(encoding="utf-8"))
    assert text["fine_tune"] == {"budget": "tiny", "steps": 7}
    assert text["probe"] == {"folds": 2, "lambdas": {"min": 1e-2, "max": 1e2, "count": 3}}
    assert text["backbone"][0]["size"] == 32


def test_the_other_experiments_are_listed(penultimate) -> None:
    listed = json.loads(penultimate("studies", "--json").out)
    assert [one["study"] for one in listed] == [
        "few examples", "convergence", "regularisation", "t-SNE", "near-duplicates", "read-outs",
    ]  # fmt: skip
    text = penultimate("studies").out.splitlines()
    assert 18 <= len(text) <= 24
    assert max(map(len, text)) <= 100
