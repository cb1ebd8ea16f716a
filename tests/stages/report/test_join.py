import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from stages.errors import JoinError
from stages.metrics import logit_epsilon
from stages.report import join_scores
from stages.report.logodds import floor_of
from stages.report.text import score_table
from stages.report.words import problems


def status_of(table, dataset="pets", backbone="net_a"):
    cells = table.cells
    return cells[(cells.dataset == dataset) & (cells.backbone == backbone)].iloc[0]["status"]


def test_cells_tell_what_became_of_them(make_row):
    rows = [
        make_row(),
        make_row(dataset="dtd", value=None, status="failed"),
        make_row(dataset="cars", value=None, status="diverged"),
        make_row(dataset="food", regime="fine_tune", seed=0),
        make_row(dataset="food", regime="fine_tune", seed=1, value=None, status="diverged"),
    ]
    planned = [("net_a", d, "linear_probe", None) for d in ("pets", "dtd", "cars", "sun")]
    table = join_scores(rows, expected=planned)
    cells = table.cells.set_index(["dataset", "regime"])["status"].to_dict()
    assert {d: s for (d, r), s in cells.items() if r == "linear_probe"} == {
        "pets": "complete",
        "dtd": "failed",
        "cars": "diverged",
        "sun": "missing",
        "food": "not planned",
    }
    assert cells["food", "fine_tune"] == "partial"
    assert table.counts() == {
        "complete": 1,
        "partial": 1,
        "diverged": 1,
        "failed": 1,
        "missing": 1,
        "not planned": 5,
        "clamped": 0,
    }


def test_a_regime_knows_what_was_planned_in_it(make_row):
    rows = [make_row(), make_row(backbone="net_b", dataset="dtd", regime="fine_tune", imagenet_top1=None)]
    table = join_scores(rows, expected=[("net_a", "sun", "linear_probe", None)])
    assert table.in_regime("linear_probe") == (("net_a",), ("sun", "pets"))
    assert table.in_regime("fine_tune") == (("net_b",), ("dtd",))


def test_every_planned_cell_is_a_row_of_the_frame(make_row):
    planned = [("net_a", "pets", "fine_tune", s) for s in (0, 1)] + [("net_b", "pets", "fine_tune", 0)]
    table = join_scores([make_row(regime="fine_tune", seed=1)], expected=planned)
    assert [(s.backbone, s.seed, s.status) for s in table.scores] == [
        ("net_a", 0, "missing"),
        ("net_a", 1, "complete"),
        ("net_b", 0, "missing"),
    ]


def test_without_a_plan_the_product_of_what_was_seen_is_planned(make_row):
    table = join_scores([make_row(), make_row(backbone="net_b", dataset="dtd", imagenet_top1=None)])
    assert table.counts()["missing"] == 2
    assert status_of(table, "dtd") == "missing"


def test_seeds_are_averaged_as_fractions(make_row):
    rows = [make_row(regime="fine_tune", seed=s, value=v) for s, v in enumerate((0.6, 0.7, 0.95))]
    cell = join_scores(rows).cells.iloc[0]
    assert cell["value"] == pytest.approx(0.75)
    assert cell["log_odds"] == pytest.approx(math.log(3))
    assert cell["seeds_complete"] == 3


def test_equal_duplicates_collapse_and_others_name_both_sources(make_row):
    twice = [make_row(), make_row(source="theirs.csv line 2")]
    assert len(join_scores(twice).scores) == 1
    with pytest.raises(JoinError, match=r"value is 0\.8 in results/a\.json and 0\.81 in theirs\.csv line 2"):
        join_scores([make_row(), make_row(source="theirs.csv line 2", value=0.81)])


@pytest.mark.parametrize("order", [1, -1])
def test_a_complete_attempt_replaces_a_failed_one(make_row, order):
    rows = [make_row(value=None, status="failed"), make_row(source="results/b.json")]
    assert [s.source for s in join_scores(rows[::order]).scores] == ["results/b.json"]


def test_a_variant_keeps_two_backbones_of_one_name_apart(make_row):
    table = join_scores([make_row(), make_row(variant="ours", weights="file:b.pth", value=0.9)])
    assert table.backbones == ("net_a", "net_a@ours")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"dataset": "caf\u00e9"},
            {"dataset": "cafe\u0301"},
            r"dataset 'caf.xe9' \(results/a.json\) and 'cafe.u0301'",
        ),
        (
            {"backbone": "a@x"},
            {"backbone": "a", "variant": "x"},
            "'a@x' .* and 'a' with the variant 'x' .* look alike",
        ),
    ],
)
def test_names_that_look_alike_are_refused(make_row, first, second, message):
    with pytest.raises(JoinError, match=message):
        join_scores([make_row(**first), make_row(**second)])


def test_the_largest_test_set_leaves_log_odds_finite(make_row):
    assert math.isfinite(join_scores([make_row(value=1.0, n_test=10**15)]).cells.iloc[0]["log_odds"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": float("nan")}, "fraction in"),
        ({"value": 76.3}, "not percent"),
        ({"value": -0.1}, "fraction in"),
        ({"value": None}, "contradicts value"),
        ({"status": "failed"}, "contradicts value"),
        ({"status": "done"}, "status is 'done'"),
        ({"n_test": 0}, "at least one test row"),
        ({"regime": "linear"}, "regime is 'linear'"),
        ({"metric": "auc"}, "metric is 'auc'"),
        ({"imagenet_top1": 76.1}, "between 0 and 1"),
        ({"backbone": ""}, "must not be empty"),
        ({"backbone": "a\nb"}, "backbone is 'a.nb': it must hold no control characters"),
        ({"dataset": "\x1b[31mred"}, "no control characters or line breaks"),
        ({"variant": "\ud800"}, "no control characters or line breaks"),
        ({"backbone": "c\u202e"}, "backbone is 'c.u202e': it must hold no control characters"),
        ({"dataset": "pe\u200bts"}, "no control characters or line breaks"),
        ({"value": 1.0, "n_test": 10**23}, "n_test is 1000.*: nobody has so many"),
        ({"seed": 2**63}, "must fit into 64 bits"),
        ({"value": 1.0, "n_test": None}, "add n_test"),
        ({"value": 0.0, "n_test": None}, "add n_test"),
        ({"value": "0.8"}, "value is '0.8': it must be a number"),
        ({"value": True}, "it must be a number"),
        ({"n_test": "200"}, "n_test is '200': it must be a whole number"),
        ({"seed": 1.5}, "it must be a whole number"),
        ({"backbone": 5}, "backbone is 5: it must be text"),
        ({"weights": None}, "weights is None: it must be text"),
        ({"n_train": -1}, "cannot be negative"),
        ({"l2_lambda": 0.0}, "l2_lambda is 0.0: give a positive number"),
        ({"learning_rate": float("inf")}, "give a positive number"),
        ({"weight_decay": float("nan")}, "give a number from 0 on"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(make_row, changes, message):
    with pytest.raises(JoinError, match=message) as caught:
        join_scores([make_row(**changes)])
    assert "results/a.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "dtd", "weights": "random:0"},
            "weights is pretrained in .*a.json and random:0 in .*b.json",
        ),
        ({"dataset": "dtd", "imagenet_top1": 0.76}, "imagenet_top1 is 0.75 in .*a.json and 0.76 in .*b.json"),
        (
            {"backbone": "net_b", "metric": "mean_per_class"},
            "metric is top_1 in .*a.json and mean_per_class in",
        ),
        ({"seed": 0}, "a.json.*b.json.*one has a seed, the other none"),
    ],
)
def test_rows_that_contradict_each_other_are_named(make_row, changes, message):
    with pytest.raises(JoinError, match=message):
        join_scores([make_row(), make_row(source="results/b.json", **changes)])


def test_a_metric_that_contradicts_the_study_is_refused(make_row):
    with pytest.raises(JoinError, match="the study says map_11_point"):
        join_scores([make_row()], metrics={"pets": "map_11_point"})


def test_a_planned_cell_of_an_unknown_regime_is_refused():
    with pytest.raises(JoinError, match="regime is 'probe'"):
        join_scores([], expected=[("net_a", "pets", "probe", None)])


def test_what_is_unknown_is_noted(make_row):
    rows = [
        make_row(imagenet_top1=None),
        make_row(dataset="air", metric="mean_per_class", value=1.0, imagenet_top1=None),
    ]
    table = join_scores(rows, expected=[("net_a", "sun", "linear_probe", None)])
    notes = "\n".join(table.notes)
    assert "net_a: its ImageNet top-1 is unknown" in notes
    assert "air: class counts are unknown" in notes
    assert "sun: not scored yet" in notes


def test_test_splits_of_different_sizes_are_told(make_row):
    rows = [
        make_row(),
        make_row(backbone="net_b", n_test=150, source="theirs.csv line 2", imagenet_top1=None),
    ]
    notes = "\n".join(join_scores(rows).notes)
    told = "pets: test splits of different sizes are compared: 150 (net_b, theirs.csv line 2), 200 (net_a, results"
    assert told in notes


@pytest.mark.parametrize(
    ("metric", "counts", "expected"),
    [
        ("top_1", None, 1 / 402),
        ("mean_per_class", (60, 90, 50), 1 / (2 * 3 * 91)),
        ("map_11_point", (30, 70), 1 / 284),
    ],
)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_clamping_is_the_protocols(make_row, metric, counts, expected, value):
    table = join_scores([make_row(metric=metric, value=value)], test_counts=counts and {"pets": counts})
    cell = table.cells.iloc[0]
    p = expected if value == 0 else 1 - expected
    assert cell["log_odds"] == pytest.approx(math.log(p / (1 - p)))
    assert cell["clamped"]
    assert cell["value"] == value


def test_the_floor_is_the_one_of_the_metrics_module():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 70)
    many = rng.integers(-1, 2, (70, 4)).astype(np.int8)
    counts = np.bincount(labels)
    assert floor_of("top_1", 70, None) == logit_epsilon("top_1", labels)
    assert floor_of("mean_per_class", 70, counts) == logit_epsilon("mean_per_class", labels)
    positives = (many == 1).sum(axis=0)
    assert floor_of("map_11_point", 70, positives) == logit_epsilon("map_11_point", many)


def test_the_views_cannot_spoil_the_table(make_row):
    table = join_scores([make_row()])
    cells = table.cells
    cells["value"] = 0.0
    assert table.cells.iloc[0]["value"] == 0.8
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.backbones = ()


def test_join_and_statistics_need_no_optional_library(tmp_path):
    script = (
        "import sys\n"
        "for name in ('matplotlib', 'jinja2', 'plotly', 'pyarrow', 'statsmodels', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        "from stages.report import join_scores\n"
        "from stages.report.files import scores_csv, statistics_json\n"
        "from stages.report.pairwise import test_pairs\n"
        "from stages.report.statistics import statistics\n"
        "from stages.report.text import correlation_lines, score_table\n"
        "table = join_scores([], expected=[('a', 'b', 'linear_probe', None)])\n"
        "found = statistics(table)\n"
        "scores_csv(table), statistics_json(found), score_table(table), correlation_lines(found)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=120)


def test_gaps_of_a_table_without_a_plan_are_told(make_row):
    """Other people's rows say nothing of what is not there: a combination, or one of the seeds."""
    rows = [
        make_row(backbone=backbone, dataset=dataset, seed=seed, regime="fine_tune", l2_lambda=None)
        for backbone in ("net_a", "net_b")
        for dataset in ("pets", "cars", "dtd")
        for seed in (0, 1, 2)
        if (backbone, dataset) != ("net_b", "cars") and (backbone, dataset, seed) != ("net_a", "dtd", 1)
    ]
    cells = [(s.backbone, s.dataset, s.regime, s.seed) for s in rows]
    table = join_scores(rows, expected=cells)
    assert problems(table, []) == [
        "net_a on dtd, fine-tuned: 2 of 3 seeds",
        "net_b, fine-tuned: no row for cars",
    ]
    assert "80.0*" in score_table(table)
    assert len(table.scores) == len(rows)


def test_scores_that_guessing_reaches_too_are_told(make_row):
    """Of 200 images and 4 classes, 59 hits (29.5 %) come of guessing in 8 of 100 tests, 62 (31 %) in 3."""
    rows = [
        make_row(value=0.295),
        make_row(backbone="net_b", value=0.31, imagenet_top1=None),
        make_row(dataset="unknown", value=0.01),
        make_row(dataset="voc", metric="map_11_point", value=0.01),
    ]
    notes = join_scores(rows, test_counts={"pets": [50] * 4, "voc": [50] * 4}).notes
    told = [note for note in notes if "chance" in note]
    assert told == ["pets, linear probe: not above chance (1 of 4 classes = 25.0 %): net_a (29.5 % of 200)"]
