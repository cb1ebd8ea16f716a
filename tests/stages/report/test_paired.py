"""Paired t-tests over data sets, and who is called the best on their strength."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from stages.report import join_scores
from stages.report.logodds import fraction
from stages.report.overview import choices
from stages.report.paired import close_to_best_mean, paired_tests
from stages.report.pairwise import test_pairs
from stages.report.predictions import Predictions
from stages.report.statistics import statistics


def test_paired_t_is_that_of_scipy_with_holm_over_the_pairs():
    rng = np.random.default_rng(5)
    wide = pd.DataFrame(rng.normal(size=(3, 6)) + np.array([[0], [0.4], [2]]), index=list("abc"))
    wide.iloc[0, 0] = np.nan
    found = paired_tests(wide)
    assert [t.datasets for t in found] == [5, 5, 6]
    expected = [
        float(stats.ttest_rel(*wide.loc[[t.first, t.second]].dropna(axis=1).to_numpy()).pvalue) for t in found
    ]
    assert [t.p_value for t in found] == pytest.approx(expected)
    assert [t.p_holm for t in found] == pytest.approx(list(multipletests(expected, method="holm")[1]))


def test_paired_t_needs_three_data_sets_and_some_variation():
    assert paired_tests(pd.DataFrame([[1.0, 2.0], [2.0, 4.0]])) == []
    same = paired_tests(pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]))[0]
    assert (same.mean, same.p_value) == (-1.0, None)


def test_the_best_mean_and_what_the_data_sets_cannot_tell_from_it():
    rng = np.random.default_rng(5)
    wide = pd.DataFrame(rng.normal(size=(3, 8)) * 0.3 + np.array([[1.0], [0.9], [-1.0]]), index=list("abc"))
    wide.loc["d"] = wide.loc["a"]
    means = {str(name): float(value) for name, value in wide.mean(axis=1).items()}
    best, close = close_to_best_mean(paired_tests(wide), means)
    other = float(stats.ttest_rel(wide.loc["a"], wide.loc["b"]).pvalue)
    assert (best, close) == ("a", ["a", "b", "d"] if other > 0.05 else ["a", "d"])
    assert close_to_best_mean([], means) == ("a", None)
    assert close_to_best_mean([], {"a": 1.0}) == (None, None)


def test_who_was_not_compared_with_the_best_is_named(make_study, make_row):
    """A foreign row brings no predictions, and shares too few data sets for a t-test."""
    foreign = make_row(backbone="theirs", dataset="set_00", value=0.01, imagenet_top1=None, n_test=2000)
    rows = [*make_study(3, 4, ["linear_probe"]), foreign]
    ids, labels = tuple(map(str, range(50))), np.zeros(50, dtype=int)
    models = [
        Predictions(f"net_{m:02d}", "set_00", "linear_probe", np.tile([m / 3, 0.5], (50, 1)), labels, ids)
        for m in range(3)
    ]
    pairs = test_pairs(models, {"set_00": "top_1"})
    part = statistics(join_scores(rows), pairs=pairs, missing="additive_model")["regimes"]["linear_probe"]
    assert part["per_dataset"]["set_00"]["not_tested"] == ["theirs"]
    assert part["correlation"]["not_tested"] == ["theirs"]
    said = "\n".join(statistics(join_scores(rows), missing="additive_model")["advice"])
    assert "by the additive model, over 4 data sets" in said
    assert "not compared with theirs for want of three common data sets" in said


def test_the_best_of_some_is_not_called_the_best_of_all(make_row):
    """b lacks a data set, so it has no mean; on the data sets that both have it is ahead of a."""
    odds = {"a": (1.0, 1.1, 1.2, 1.3), "b": (1.51, 1.58, 1.71, None), "c": (0.51, 0.59, 0.71, 0.8)}
    rows = [
        make_row(backbone=name, dataset=f"set_{d}", value=float(fraction(x)), imagenet_top1=top1)
        for top1, (name, values) in zip((0.7, 0.75, 0.8), odds.items(), strict=True)
        for d, x in enumerate(values)
        if x is not None
    ]
    table = join_scores(rows, expected=[(s.backbone, s.dataset, s.regime, s.seed) for s in rows])
    found = statistics(table)
    assert found["advice"][0].startswith(
        "linear probe: 2 of 3 backbones have a score on every data set; of them a has the highest mean over 4 data "
        "sets (+0.50 log odds"
    )
    assert (
        ", significantly ahead of 1 other, significantly behind b on their common data sets (paired t"
        in (found["advice"][0])
    )
    assert found["advice"][0].endswith("; left out for gaps: b")
    cell = choices(table, found)[0].cells[0]
    assert cell.endswith("(ahead of 1 other; behind b on common data sets; 1 left out for gaps)")
    text = found["regimes"]["linear_probe"]["correlation"]["text"]
    assert text == "not defined (only 2 backbones; left out for gaps: b)"
    nobody = statistics(join_scores([s for s in rows if (s.backbone, s.dataset) not in
                                     {("a", "set_0"), ("c", "set_1")}]))  # fmt: skip
    text = nobody["regimes"]["linear_probe"]["correlation"]["text"]
    assert text == "not defined (no backbone has a score on every data set)"
    assert nobody["advice"][0] == (
        "linear probe: none of 3 backbones has a score on every data set, so no best mean is named"
    )


def test_the_additive_model_does_not_outvote_a_test(make_row):
    """a and b share three sets, on which b is better; c, which both are linked to, puts a first."""
    small = (0.0, 0.01, -0.01, 0.005)
    cells = {("a", f"s{j}"): 1.0 + small[j] for j in range(3)} | {
        ("b", f"s{j}"): 1.15 - small[j] for j in range(3)
    }
    for j, e in enumerate(small):
        cells |= {("a", f"p{j}"): 2 + e, ("c", f"p{j}"): -e, ("b", f"q{j}"): 0.5 - e, ("c", f"q{j}"): e}
    rows = [
        make_row(backbone=b, dataset=d, value=float(fraction(x)), n_test=10**6) for (b, d), x in cells.items()
    ]
    table = join_scores(rows)
    found = statistics(table, missing="additive_model")
    correlation = found["regimes"]["linear_probe"]["correlation"]
    assert (correlation["best"], correlation["ahead_of_best"]) == ("a", ["b"])
    assert correlation["ties_with_best"] == ["a", "b"]
    said = found["advice"][0]
    assert "(-0.15 log odds [" in said
    assert "against b, the next, over their 3 common data sets)" in said
    assert "significantly ahead of 1 other, significantly behind b on their common data sets" in said
    assert choices(table, found)[0].cells[0].endswith("(ahead of 1 other; behind b on common data sets)")


def test_seeds_that_contradict_their_mean_decide_nothing(make_row):
    """a has the better mean; on the lowest seed, which is the one tested, b is far ahead."""
    seeds = {"a": (0.50, 0.95, 0.95), "b": (0.75, 0.76, 0.74)}
    rows = [
        make_row(backbone=name, seed=seed, value=value, regime="fine_tune", n_test=100)
        for name, values in seeds.items()
        for seed, value in enumerate(values)
    ]
    ids, labels = tuple(map(str, range(100))), np.zeros(100, dtype=int)
    models = [
        Predictions(
            row.backbone, "pets", "fine_tune", np.eye(2)[(np.arange(100) >= 100 * row.value).astype(int)], labels,
            ids, row.seed,
        )
        for row in rows
    ]  # fmt: skip
    pairs = test_pairs(models, {"pets": "top_1"})
    table = join_scores(rows)
    found = statistics(table, pairs=pairs)
    single = found["regimes"]["fine_tune"]["per_dataset"]["pets"]
    assert (pairs[0].first_seed, pairs[0].second_seed) == (0, 0)
    assert pairs[0].p_value < 0.001
    assert (single["best"], single["ties_with_best"], single["ahead_of_best"]) == ("a", ["a", "b"], ["b"])
    assert single["tested_seeds"] == [0]
    assert choices(table, found)[0].cells == (
        "a 80.0 (not tested against b: the lowest seeds contradict the means; test of seed 0)",
    )
    assert found["advice"][1].endswith("; on pets the lowest seeds, which are tested, contradict the means")
