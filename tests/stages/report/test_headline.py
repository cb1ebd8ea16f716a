"""The paper's own numbers go through the join, the statistics and the figures."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context

from stages.records import Score
from stages.report import join_scores, read_scores
from stages.report.correlation import correlate
from stages.report.draw_transfer import dataset_figure, transfer_figure
from stages.report.logodds import fraction, log_odds
from stages.report.page import render_report
from stages.report.statistics import statistics
from stages.report.style import RC, save

DATA = os.environ.get("PENULTIMATE_TEST_DATA")
REFERENCE = Path(DATA).parent / "reference" if DATA else None

pytestmark = pytest.mark.skipif(
    REFERENCE is None or not REFERENCE.is_dir(),
    reason="PENULTIMATE_TEST_DATA is not set, or has no reference beside it",
)

COLUMNS = {
    "linear_probe": "linear_probe_mean_logit",
    "fine_tune": "fine_tune_mean_logit",
    "from_scratch": "from_scratch_mean_logit",
}
PAPER = {"linear_probe": (0.986, "0.99"), "fine_tune": (0.954, "0.96"), "from_scratch": (0.546, "0.55")}


def rows_of(name):
    assert REFERENCE is not None
    with (REFERENCE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score(backbone, dataset, regime, value, top1, source, metric="top_1", variant=""):
    empty = dict.fromkeys(("n_train", "seed", "steps", "l2_lambda", "learning_rate", "weight_decay"))
    return Score(
        study="published",
        backbone=backbone,
        weights="published",
        variant=variant,
        dataset=dataset,
        regime=regime,
        metric=metric,
        value=value,
        n_test=None,
        imagenet_top1=top1,
        status="complete",
        source=source,
        job="",
        **empty,
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def means():
    """Sixteen networks; two data sets on either side of each network's mean keep that mean."""
    rows = []
    for line in rows_of("paper_figure2_means.csv"):
        for regime, column in COLUMNS.items():
            for shift, dataset in ((-0.5, "harder half"), (0.5, "easier half")):
                value = float(fraction(float(line[column]) + shift))
                top1 = float(line["imagenet_top1_percent"]) / 100
                rows.append(score(line["paper_name"], dataset, regime, value, top1, "Figure 2"))
    return join_scores(rows)


@pytest.mark.parametrize("regime", list(PAPER))
def test_the_headline_correlations_come_out(means, regime):
    found = statistics(means)["regimes"][regime]["correlation"]
    ours, printed = PAPER[regime]
    assert found["pearson"] == pytest.approx(ours, abs=0.0006)
    assert abs(found["pearson"] - float(printed)) < 0.012
    low, high = found["interval"]
    assert low < found["pearson"] < high


def test_the_correlation_needs_no_table():
    lines = rows_of("paper_figure2_means.csv")
    x = log_odds([float(line["imagenet_top1_percent"]) / 100 for line in lines])
    y = np.array([float(line["linear_probe_mean_logit"]) for line in lines])
    assert correlate(x, y).pearson == pytest.approx(0.986, abs=0.0006)


def test_the_papers_figure_is_drawn(means):
    with rc_context(RC):
        figure = transfer_figure(means, statistics(means))
        assert [len(ax.lines) for ax in figure.axes] == [17, 17, 17]  # sixteen networks and the line
        assert [ax.get_title().splitlines()[1][:8] for ax in figure.axes] == [
            "r = 0.99",
            "r = 0.95",
            "r = 0.55",
        ]
        pdf, png = save(figure)
    assert pdf.startswith(b"%PDF")
    assert png.startswith(b"\x89PNG")


def test_published_scores_make_a_report_as_foreign_rows(tmp_path):
    known = {row["model"]: float(row["top1"]) / 100 for row in rows_of("imagenet_top1_timm.csv")}
    metrics = {row["dataset"]: row["metric"] for row in rows_of("paper_datasets.csv")}
    columns = "backbone,variant,dataset,regime,metric,value,imagenet_top1,source".split(",")
    with (tmp_path / "published.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for line in rows_of("published_transfer.csv"):
            top1 = known.get(f"{line['backbone'].split()[0]}.tv_in1k", "")
            source = f"published_transfer.csv: {line['source']}"
            for dataset, metric in metrics.items():
                if line[dataset]:
                    cell = [line["backbone"], line["source"].split()[0], dataset, line["regime"], metric]
                    writer.writerow([*cell, float(line[dataset]) / 100, top1, source])
    table = join_scores(read_scores(tmp_path / "published.csv"))
    found = statistics(table)
    assert len([s for s in table.scores if s.value is not None]) == 80
    assert set(table.datasets) == set(metrics)
    part = found["regimes"]["linear_probe"]
    assert len(part["means"]) == 4  # the fifth lacks four data sets
    assert part["correlation"]["verdict"] == "defined"
    page = render_report(table, found, title="Published scores")
    assert "published_transfer.csv" in page
    assert len(dataset_figure(table, found, "linear_probe").axes) == 12
    assert transfer_figure(table, found) is not None
