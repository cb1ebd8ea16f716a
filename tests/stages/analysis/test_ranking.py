from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stages.analysis.ranking import rank_agreement

NUMBERS = st.floats(-50, 50).map(lambda v: round(v, 3))


def test_correlations_are_scipys_over_backbones_that_have_both():
    scores = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 9.0, "e": None, "f": 0.5}
    odds = {"a": 0.1, "b": 0.5, "c": 0.6, "d": 2.0, "e": 1.0, "g": 3.0, "f": math.inf}
    found = rank_agreement(scores, odds, dataset="pets", score="logme", target="fine_tune")
    assert found.backbones == ("a", "b", "c", "d")
    assert found.left_out == ("e", "f", "g")
    x, y = [1.0, 3.0, 2.0, 9.0], [0.1, 0.5, 0.6, 2.0]
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found.weighted_kendall == pytest.approx(stats.weightedtau(x, y).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found.chosen, found.best, found.regret) == (("d",), ("d",), 0.0)


@given(st.dictionaries(st.sampled_from("abcdefg"), st.tuples(NUMBERS, NUMBERS), min_size=2))
def test_the_regret_is_never_negative_and_zero_for_the_truth(rows):
    scores, odds = ({k: v[i] for k, v in rows.items()} for i in (0, 1))
    found = rank_agreement(scores, odds)
    assert found.regret is not None
    assert 0 <= found.regret <= max(odds.values()) - min(odds.values()) + 1e-9
    truth = rank_agreement({k: 2 * v for k, v in odds.items()}, odds)
    assert truth.regret == 0
    assert truth.chosen == truth.best
    assert truth.kendall is None or truth.kendall == pytest.approx(1)


def test_few_backbones_and_ties_have_a_regret_and_no_correlation():
    three = rank_agreement({"a": 1, "b": 2, "c": 2}, {"a": 3, "b": 1, "c": 2})
    assert three.kendall is three.weighted_kendall is three.spearman is None
    assert three.reason == "3 backbones: rank correlations need 4"
    assert three.chosen == ("b", "c")
    assert three.regret == 1.5
    flat = rank_agreement(dict.fromkeys("abcd", 1.0), {"a": 1, "b": 2, "c": 3, "d": 4})
    assert flat.reason == "all backbones have the same score"
    assert flat.regret == 1.5
    alone = rank_agreement({"a": 1}, {"a": 1})
    assert alone.regret is None
    assert rank_agreement({}, {}).chosen == ()
