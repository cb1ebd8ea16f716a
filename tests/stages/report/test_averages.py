"""Means over data sets with gaps: complete backbones, the additive model, what is left out."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from stages.report import join_scores
from stages.report.averages import averages
from stages.report.logodds import log_odds
from stages.report.statistics import statistics
from stages.report.text import correlation_lines


def test_the_additive_model_is_least_squares_and_equals_the_mean_without_gaps():
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(5, 4)), index=list("abcde"), columns=list("wxyz"))
    np.testing.assert_allclose(averages(wide, "additive_model").means, wide.mean(axis=1))
    holes = wide.mask(rng.random(wide.shape) < 0.25)
    assert holes.isna().any().any()
    long = holes.rename_axis("m").reset_index().melt("m", var_name="d").dropna()
    fit = smf.ols("value ~ C(m) + C(d)", long).fit()
    grid = pd.DataFrame([(m, d) for m in "abcde" for d in "wxyz"], columns=["m", "d"])
    expected = fit.predict(grid).groupby(grid["m"]).mean()
    found = averages(holes, "additive_model")
    np.testing.assert_allclose(found.means, expected[found.means.index])
    assert found.rule.startswith("additive model")
    assert found.bars.isna().all()


def test_the_additive_model_compares_only_what_is_linked():
    wide = pd.DataFrame(
        [[1.0, 2.0, np.nan], [1.5, 2.5, np.nan], [np.nan, np.nan, 3.0]],
        index=list("abc"),
        columns=list("xyz"),
    )
    assert list(averages(wide, "additive_model").means.index) == ["a", "b"]


def test_what_the_additive_model_did_not_use_is_not_counted_but_named(make_row):
    """a and b share nothing with c and d: one data set entered the means."""
    cells = {"a": ("x", 0.5), "b": ("x", 0.6), "c": ("y", 0.7), "d": ("y", 0.8)}
    rows = [make_row(backbone=b, dataset=d, value=v, imagenet_top1=v + 0.1) for b, (d, v) in cells.items()]
    found = statistics(join_scores(rows), missing="additive_model")
    part = found["regimes"]["linear_probe"]
    assert (part["datasets"], part["left_out"]) == (["x"], ["c", "d"])
    assert part["rule"].endswith("not linked with them by common data sets and left out: c, d, y")
    assert "fewer than 2 data sets" in part["correlation"]["text"]
    assert "over 1 data set" in found["advice"][0]


def test_leaving_one_data_set_out_keeps_backbones_and_rule(make_study):
    """Five of ten backbones lack a data set: r and its range are over all ten, refitted."""
    rows = [s for s in make_study(10, 4, ["linear_probe"]) if s.backbone > "net_04" or s.dataset != "set_00"]
    table = join_scores(rows)
    correlation = statistics(table, missing="additive_model")["regimes"]["linear_probe"]["correlation"]
    x = log_odds([table.imagenet_top1[name] for name in table.backbones])
    wide = table.matrix("linear_probe")
    brute = [
        float(np.corrcoef(x, averages(wide.drop(columns=[name]), "additive_model").means)[0, 1])
        for name in wide
    ]
    assert correlation["models"] == 10
    assert correlation["leave_one_dataset_out"]["range"] == pytest.approx([min(brute), max(brute)])
    chain = wide.mask(wide.notna())
    for row in range(10):  # backbone k has data sets k and k + 1, so each of them is a link
        chain.iloc[row, [min(row, 2), min(row, 2) + 1]] = wide.iloc[row, [min(row, 2), min(row, 2) + 1]]
    assert len(averages(chain, "additive_model").means) == 10
    assert averages(chain, "additive_model").without_each() is None


def test_complete_backbones_are_a_stated_rule(make_study):
    rows = [s for s in make_study(5, 3) if (s.backbone, s.dataset) != ("net_02", "set_01")]
    part = statistics(join_scores(rows))["regimes"]["fine_tune"]
    assert part["left_out"] == ["net_02"]
    assert part["rule"] == "complete backbones only: 4 of 5 have a score on every data set"
    assert part["correlation"]["models"] == 4
    assert correlation_lines({"regimes": {"fine_tune": part}})[0].endswith(
        ", 4 backbones; left out for gaps: net_02"
    )
    nobody = [s for s in make_study(3, 3) if (s.backbone, s.dataset) not in
              {("net_00", "set_00"), ("net_01", "set_01"), ("net_02", "set_02")}]  # fmt: skip
    rule = statistics(join_scores(nobody))["regimes"]["fine_tune"]["rule"]
    assert 'additive_model" in [report] would take every cell' in rule


def test_a_data_set_nobody_has_a_score_on_does_not_empty_the_table(make_study, make_row):
    lost = {"dataset": "lost", "value": None, "status": "failed", "imagenet_top1": None}
    failed = [make_row(backbone=f"net_{m:02d}", **lost) for m in range(4)]
    part = statistics(join_scores([*make_study(4, 3, ["linear_probe"]), *failed]))["regimes"]["linear_probe"]
    assert len(part["means"]) == 4
    assert "without any score and left out: lost" in part["rule"]
    assert part["per_dataset"]["lost"]["verdict"] == "not defined"


def test_an_unknown_imagenet_accuracy_leaves_the_correlation_but_not_the_means(make_study):

    rows = [
        dataclasses.replace(s, imagenet_top1=None) if s.backbone == "net_00" else s for s in make_study(4, 3)
    ]
    found = statistics(join_scores(rows))
    part = found["regimes"]["linear_probe"]
    assert part["correlation"]["text"] == "not informative (only 3 backbones with a known ImageNet top-1)"
    assert len(part["means"]) == 4
    assert "net_00" in found["notes"][0]


def test_one_data_set_has_no_correlation_of_means(make_study):
    part = statistics(join_scores(make_study(5, 1)))["regimes"]["linear_probe"]
    assert part["correlation"]["text"] == "not defined (fewer than 2 data sets)"
    assert part["per_dataset"]["set_00"]["verdict"] == "defined"
    assert part["means"]["net_00"]["bar"] is None
