"""Statistics of the joined table, against other libraries, published examples and invariants."""

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

from stages.report import join_scores
from stages.report.averages import averages
from stages.report.comparison import compare_regimes
from stages.report.correlation import correlate
from stages.report.dictionary import COLUMNS, DICTIONARY
from stages.report.logodds import fraction, log_odds, morey_bars
from stages.report.paired import paired_tests
from stages.report.pairwise import test_pairs
from stages.report.predictions import Predictions
from stages.report.resampling import bootstrap, leave_one_out
from stages.report.statistics import plain, statistics
from stages.report.table import SCORE_COLUMNS

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
