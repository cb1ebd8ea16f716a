import dataclasses
import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.multitest import multipletests

from stages.report import join_scores
from stages.report.averages import averages
from stages.report.comparison import compare_regimes
from stages.report.correlation import correlate
from stages.report.dictionary import COLUMNS, DICTIONARY
from stages.report.logodds import fraction, log_odds, morey_bars
from stages.report.overview import choices
from stages.report.paired import close_to_best_mean, paired_tests
from stages.report.pairwise import test_pairs
from stages.report.predictions import Predictions
from stages.report.resampling import bootstrap, leave_one_out
from stages.report.statistics import plain, statistics
from stages.report.table import SCORE_COLUMNS
from stages.report.text import correlation_lines

TABLES = hnp.arrays(float, st.tuples(st.integers(2, 6), st.integers(2, 6)), elements=st.floats(-4, 4))


def leaves(value):
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_morey_on_a_published_example():
    """Pre- and posttest of ten people: standard error 0.7154214, as the R Cookbook prints it."""
    before = [59.4, 46.4, 46.0, 49.0, 32.5, 45.2, 60.3, 54.3, 45.4, 38.9]
    after = [64.5, 52.4, 49.7, 48.7, 37.4, 49.5, 59.9, 54.1, 49.6, 48.5]
    assert morey_bars(np.array([before, after])) == pytest.approx([0.7154214] * 2, abs=5e-8)


def test_morey_pools_to_the_interaction_mean_square_of_loftus_and_masson():
    """Their Table 2 (1994): ten people, three conditions, MS of the interaction 0.61."""
    recall = np.array(
        [
            [10, 6, 11, 22, 16, 15, 1, 12, 9, 8],
            [13, 8, 14, 23, 18, 17, 1, 15, 12, 9],
            [13, 8, 14, 25, 20, 17, 4, 17, 12, 12],
        ]
    )
    assert 10 * float((morey_bars(recall) ** 2).mean()) == pytest.approx(0.61, abs=0.005)


def test_morey_refuses_gaps_and_says_nothing_of_one_model_or_one_data_set():
    with pytest.raises(ValueError, match="complete table"):
        morey_bars(np.array([[1.0, np.nan], [1.0, 2.0]]))
    assert np.isnan(morey_bars(np.ones((1, 4)))).all()
    assert np.isnan(morey_bars(np.ones((4, 1)))).all()


@settings(deadline=None)
@given(st.floats(-12, 12))
def test_log_odds_and_fraction_invert_each_other(x):
    assert float(log_odds(fraction(x))) == pytest.approx(x, abs=1e-6)


def test_the_correlation_is_that_of_other_libraries():
    rng = np.random.default_rng(3)
    x = rng.normal(size=9)
    y = 0.7 * x + rng.normal(size=9)
    found = correlate(x, y)
    line = smf.ols("y ~ x", pd.DataFrame({"x": x, "y": y})).fit()
    assert found.pearson == pytest.approx(float(np.corrcoef(x, y)[0, 1]))
    assert found.slope == pytest.approx(line.params["x"])
    assert found.intercept == pytest.approx(line.params["Intercept"])
    assert found.spearman == pytest.approx(float(pd.Series(x).corr(pd.Series(y), method="spearman")))
    concordant = sum(np.sign((x[i] - x[j]) * (y[i] - y[j])) for i in range(9) for j in range(i))
    assert found.kendall == pytest.approx(concordant / 36)
    z, half = math.atanh(found.pearson), stats.norm.ppf(0.975) / math.sqrt(6)
    assert found.interval == pytest.approx((math.tanh(z - half), math.tanh(z + half)))


MPG = [21.0, 21.0, 22.8, 21.4, 18.7, 18.1, 14.3, 24.4, 22.8, 19.2, 17.8, 16.4, 17.3, 15.2, 10.4, 10.4, 14.7,
       32.4, 30.4, 33.9, 21.5, 15.5, 15.2, 13.3, 19.2, 27.3, 26.0, 30.4, 15.8, 19.7, 15.0, 21.4]  # fmt: skip
WEIGHT = [2.620, 2.875, 2.320, 3.215, 3.440, 3.460, 3.570, 3.190, 3.150, 3.440, 3.440, 4.070, 3.730, 3.780, 5.250,
          5.424, 5.345, 2.200, 1.615, 1.835, 2.465, 3.520, 3.435, 3.840, 3.845, 1.935, 2.140, 1.513, 3.170, 2.770,
          3.570, 2.780]  # fmt: skip
"""Of R's mtcars: thirty-two cars of 1974."""


def test_the_correlation_is_that_of_r():
    """cor.test(mpg, wt) prints -0.8676594 [-0.9338264, -0.7440872]; Spearman -0.886422, Kendall -0.7278321."""
    found = correlate(np.array(MPG), np.array(WEIGHT))
    assert found.pearson == pytest.approx(-0.8676594, abs=5e-8)
    assert found.interval == pytest.approx((-0.9338264, -0.7440872), abs=5e-8)
    assert found.spearman == pytest.approx(-0.886422, abs=5e-7)
    assert found.kendall == pytest.approx(-0.7278321, abs=5e-8)


def test_the_paired_t_test_is_that_of_r():
    """t.test(..., paired = TRUE) on R's sleep prints p 0.002833, mean -1.58 [-2.4598858, -0.7001142]."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    (found,) = paired_tests(pd.DataFrame([first, second], index=["group 1", "group 2"]))
    assert found.mean == pytest.approx(-1.58)
    assert found.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)


def test_what_differs_by_rounding_alone_is_equal():
    """Sums of the same numbers in another order are no variation, and no t of 1e15."""
    x = np.linspace(1, 2, 5)
    noise = np.array([0, 1, -1, 2, 0]) * 1e-16
    assert correlate(x, 0.3 + noise).verdict == "not defined"
    assert bootstrap(x, 0.3 + noise) is None
    shifted = pd.DataFrame([x, x + 0.1 + noise])
    assert paired_tests(shifted)[0].p_value is None


@pytest.mark.parametrize("models", [0, 1, 2, 3, 4])
def test_few_backbones_say_little(models):
    x = np.arange(models, dtype=float)
    found = correlate(x, x**2)
    expected = ["not defined", "not defined", "not defined", "not informative", "defined"][models]
    assert found.verdict == expected
    assert (found.interval is not None) == (models == 4)
    assert ("0." in found.text()) == (models == 4)


def test_equal_scores_have_no_correlation():
    assert correlate(np.arange(5.0), np.ones(5)).text() == (
        "not defined (all backbones have the same transfer accuracy)"
    )


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(float, st.tuples(st.integers(2, 6), st.integers(2, 6)), elements=st.floats(-4, 4)), st.data()
)
def test_bars_and_means_do_not_mind_order_or_easy_data_sets(x, data):
    rows = data.draw(st.permutations(range(x.shape[0])))
    columns = data.draw(st.permutations(range(x.shape[1])))
    shift = data.draw(hnp.arrays(float, x.shape[1], elements=st.floats(-3, 3)))
    bars = morey_bars(x)
    np.testing.assert_allclose(morey_bars(x[rows][:, columns]), bars[rows], atol=1e-9)
    np.testing.assert_allclose(morey_bars(x + shift), bars, atol=1e-9)
    assert (bars >= 0).all()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(float, st.integers(4, 12), elements=st.floats(-3, 3), unique=True),
    st.floats(0.1, 5),
    st.floats(-3, 3),
)
def test_r_of_an_exact_line_is_one(x, slope, intercept):
    if np.ptp(x) < 1e-3:
        return
    assert correlate(x, slope * x + intercept).pearson == pytest.approx(1.0, abs=1e-6)
    assert correlate(x, -slope * x + intercept).pearson == pytest.approx(-1.0, abs=1e-6)


def test_permuting_the_rows_changes_no_number(make_study):
    rows = make_study(6, 4)
    order = np.random.default_rng(1).permutation(len(rows))
    one = statistics(join_scores(rows))
    other = statistics(join_scores([rows[i] for i in order]))
    for regime in one["regimes"]:
        for key in ("pearson", "spearman", "kendall", "slope", "intercept"):
            left, right = (s["regimes"][regime]["correlation"][key] for s in (one, other))
            assert left == pytest.approx(right)
        means = one["regimes"][regime]["means"]
        for name, mean in other["regimes"][regime]["means"].items():
            assert mean == pytest.approx(means[name])


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


def test_regimes_are_compared_cell_by_cell(make_study):
    rows = make_study(4, 3)
    found = {(c.first, c.second): c for c in compare_regimes(join_scores(rows[1:]))}
    comparison = found["fine_tune", "linear_probe"]
    tuned, probe = (
        pd.DataFrame([(s.backbone, s.dataset, s.value) for s in rows[1:] if s.regime == regime]).set_index(
            [0, 1]
        )[2]
        for regime in ("fine_tune", "linear_probe")
    )
    kept = tuned.index[probe.reindex(tuned.index).notna()]
    difference = log_odds(tuned[kept]) - log_odds(probe[kept])
    assert comparison.cells == 11
    assert comparison.wins == int((difference > 0).sum())
    means = list(comparison.per_dataset.values())
    expected = pd.Series(difference, kept).groupby(level=1).mean().to_dict()
    assert comparison.per_dataset == pytest.approx(expected)
    assert comparison.mean == pytest.approx(float(np.mean(means)))
    assert comparison.odds_ratio == pytest.approx(math.exp(comparison.mean))
    assert np.mean(comparison.interval) == pytest.approx(comparison.mean)  # with or without gaps
    assert comparison.p_value == pytest.approx(float(stats.ttest_rel(means, [0.0] * 3).pvalue))


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


def test_the_bootstrap_is_what_it_says():
    rng = np.random.default_rng(2)
    x = rng.normal(size=10)
    y = x + 0.3 * rng.normal(size=10)
    found = bootstrap(x, y, draws=3000, seed=1)
    reference = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=3000,
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert found["interval"] == pytest.approx([reference.low, reference.high], abs=0.03)
    line = np.polyval(np.polyfit(x, y, 1), found["band"]["x"])
    assert (np.array(found["band"]["low"]) <= line).all()
    assert (line <= np.array(found["band"]["high"])).all()
    assert bootstrap(x[:3], y[:3]) is None
    assert bootstrap(x, np.ones(10)) is None


def test_leaving_one_data_set_out_names_the_ends():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    wide = np.column_stack([x, x, -9 * x[::-1] * [0, 1, 0, 1]])
    means = averages(pd.DataFrame(wide)).without_each().to_numpy()
    found = leave_one_out(x, means, ["a", "b", "odd"])
    assert found["without_highest"] == "odd"
    assert found["range"][1] == pytest.approx(1.0)
    brute = [np.corrcoef(x, np.delete(wide, d, axis=1).mean(axis=1))[0, 1] for d in range(3)]
    assert found["range"] == pytest.approx([min(brute), max(brute)])


def keys_of(value, path=""):
    """Every leaf's path, lists as [] and names that the data chose as *."""
    chosen = ("regimes", "cells", "imagenet_top1", "means", "per_dataset")
    if path in DICTIONARY:
        return {path}
    if isinstance(value, dict):
        last = path.rsplit(".", 1)[-1]
        names = {key: "*" if last in chosen else key for key in value}
        return {k for key, name in names.items() for k in keys_of(value[key], f"{path}.{name}".lstrip("."))}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key for item in value for key in keys_of(item, f"{path}[]")}
    return {path}


def test_every_key_is_explained_and_every_explanation_has_a_key(make_study):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50)
    ids = tuple(map(str, range(50)))
    predictions = [
        Predictions(name, "set_00", "fine_tune", rng.normal(size=(50, 2)), labels, ids)
        for name in ("net_00", "net_01")
    ]
    pairs = test_pairs(predictions, {"set_00": "top_1"})
    found = json.loads(json.dumps(statistics(join_scores(make_study(5, 3)), pairs=pairs), allow_nan=False))
    paths = {key for name, value in found.items() if name != "dictionary" for key in keys_of(value, name)}
    paths = {path for path in paths if not path.startswith("definitions")}
    assert paths == set(found["dictionary"])
    assert tuple(found["scores_columns"]) == tuple(COLUMNS) == SCORE_COLUMNS
    assert all(not isinstance(leaf, float) or math.isfinite(leaf) for leaf in leaves(found))


def test_plain_knows_numpy_and_no_nan():
    assert plain({1: (np.float64(0.5), np.nan, np.int64(3), np.bool_(True), math.inf)}) == {
        "1": [0.5, None, 3, True, None]
    }


def test_advice_states_what_a_shortcut_would_have_cost(make_row):
    values = {"a": (0.8, 0.90), "b": (0.7, 0.95), "c": (0.6, 0.85)}
    rows = [
        make_row(backbone=name, dataset=dataset, regime=regime, value=value, imagenet_top1=top1)
        for top1, (name, pair) in zip((0.8, 0.7, 0.6), values.items(), strict=True)
        for regime, value in zip(("linear_probe", "fine_tune"), pair, strict=True)
        for dataset in ("x", "y", "z")
    ]
    said = "\n".join(statistics(join_scores(rows))["advice"])
    assert (
        "by the linear probe finds the best one on 0 of 3 data sets; it costs 5.0 points on average" in said
    )
    assert "fine-tuned: b has the highest mean over 3 data sets" in said
    assert "it gains on" in said
    assert statistics(join_scores(rows[:1]))["advice"] == []


def test_advice_names_ties_as_ties(make_row):
    """The probe cannot tell a from b; fine-tuned they differ, so its choice costs their mean, in any order."""
    values = {"a": (0.8, 0.90), "b": (0.8, 0.94), "c": (0.6, 0.85)}
    for order in ("abc", "bac", "cba"):
        rows = [
            make_row(backbone=name, dataset=dataset, regime=regime, value=value, imagenet_top1=None)
            for name in order
            for regime, value in zip(("linear_probe", "fine_tune"), values[name], strict=True)
            for dataset in ("x", "y", "z")
        ]
        said = "\n".join(statistics(join_scores(rows))["advice"])
        assert "it costs 2.0 points on average" in said
        assert "on 3 it cannot tell several apart, their mean counts" in said
        assert "a and b (equal scores) on x, y and z" in said
        assert "highest mean over 3 data sets, not significantly ahead of" in said


@pytest.mark.slow
@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_fishers_interval_covers_a_known_r(r):
    """Over 2,000 draws of sixteen bivariate-normal models; the bootstrap's coverage is told, not barred."""
    rng = np.random.default_rng(int(100 * r))
    covered = covered_by_bootstrap = 0
    for draw in range(2000):
        x, y = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 16).T
        low, high = correlate(x, y).interval
        covered += low <= r <= high
        if draw < 400:
            low, high = bootstrap(x, y, draws=500, seed=draw)["interval"]
            covered_by_bootstrap += low <= r <= high
    shares = covered / 2000, covered_by_bootstrap / 400
    logging.getLogger(__name__).info(f"r {r}: Fisher {shares[0]:.3f}, bootstrap {shares[1]:.3f}")
    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(TABLES, st.randoms(use_true_random=False), st.floats(-3, 3))
def test_a_thousand_tables_keep_their_statistics(x, random, constant):
    """Shuffled, and with a constant added to the log odds of one data set."""
    wide = pd.DataFrame(x)
    rows, columns = list(wide.index), list(wide.columns)
    random.shuffle(rows)
    random.shuffle(columns)
    shifted = wide.loc[rows, columns].copy()
    shifted.iloc[:, 0] += constant
    one, other = averages(wide), averages(shifted)
    moved = constant / len(columns)
    np.testing.assert_allclose(other.means[one.means.index], one.means + moved, atol=1e-9)
    np.testing.assert_allclose(other.bars[one.bars.index], one.bars, atol=1e-9)
    straight, shuffled = (
        {frozenset((t.first, t.second)): t for t in paired_tests(w)} for w in (wide, shifted)
    )
    assert straight.keys() == shuffled.keys()
    for pair, test in straight.items():
        sign = 1 if test.first == shuffled[pair].first else -1
        assert shuffled[pair].mean == pytest.approx(sign * test.mean, abs=1e-9)
        assert (shuffled[pair].p_value is None) == (test.p_value is None)
    known = np.arange(len(rows), dtype=float)
    before = correlate(known, one.means.to_numpy())
    after = correlate(known[rows], other.means.to_numpy())
    if before.pearson is not None and after.pearson is not None and np.ptp(one.means) > 1e-6:
        assert after.pearson == pytest.approx(before.pearson, abs=1e-6)
        line = correlate(one.means.to_numpy(), 2 * one.means.to_numpy() - 1)
        assert line.pearson == pytest.approx(1.0, abs=1e-6)
