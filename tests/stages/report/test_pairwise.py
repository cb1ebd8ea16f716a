import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from stages.errors import JoinError
from stages.metrics import map_11_point, mean_per_class
from stages.report.exchange import ENOUGH_HITS, mcnemar, per_class_exchange, sequential
from stages.report.pairwise import holm, test_pairs, ties_with_best
from stages.report.predictions import Predictions
from stages.report.rank_exchange import Rankings, rank_exchange


def predictions(name, draw, *, dataset="pets", n=80, classes=3, strength=1.0, labels=None, **more):
    rng = np.random.default_rng(draw)
    if labels is None:
        labels = np.random.default_rng(7).integers(0, classes, n)
    scores = rng.normal(size=(n, classes)) + strength * np.eye(classes)[labels]
    ids = tuple(f"{i}.jpg" for i in range(n))
    return Predictions(name, dataset, "linear_probe", scores, labels, ids, source=f"{name}.npz", **more)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20))
def test_mcnemar_is_that_of_statsmodels(only_a, only_b, both):
    a = np.repeat([True, False, True], [only_a, only_b, both])
    b = np.repeat([False, True, True], [only_a, only_b, both])
    expected = reference_mcnemar([[both, only_a], [only_b, 0]], exact=True).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(min(1.0, float(expected)))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p):
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_is_that_of_r():
    """p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") prints 0.05 0.08 0.09 0.09 0.09."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


def test_with_one_class_the_exchange_is_mcnemar_within_the_error_of_drawing():
    rng = np.random.default_rng(0)
    for share in (0.5, 0.6, 0.7):
        discordant = rng.random(60) < share
        a, b = discordant, ~discordant
        p, draws = per_class_exchange(a, b, np.zeros(60, dtype=int), draws=20_000, seed=1)
        exact = mcnemar(a, b)
        error = p / np.sqrt(ENOUGH_HITS) if draws < 20_000 else np.sqrt(exact * (1 - exact) / draws)
        assert abs(p - exact) < 4 * error + 1e-4


def test_the_per_class_exchange_is_that_of_swapping_predictions():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [40, 15, 5])
    a, b = rng.random(60) < 0.75, rng.random(60) < 0.55
    p, draws = per_class_exchange(a, b, labels, draws=20_000, seed=0)

    def value(right):
        return np.mean([right[labels == k].mean() for k in range(3)])

    observed, hits = abs(value(a) - value(b)), 0
    for swap in rng.random((4000, 60)) < 0.5:
        hits += abs(value(np.where(swap, b, a)) - value(np.where(swap, a, b))) >= observed - 1e-12
    assert p == pytest.approx((1 + hits) / 4001, abs=4 * np.sqrt(p / 4000) + 3 * p / np.sqrt(ENOUGH_HITS))
    assert draws <= 20_000


THREE = [("a", 0.5), ("b", 2.0), ("c", 2.0)]
"""Models and how well each tells the classes apart."""


def multi_label(seed, n=60, labels=4):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, labels)) < 0.25).astype(np.int8)
    truth[rng.random((n, labels)) < 0.05] = -1
    truth[:, -1] = 0  # a label without a positive has no average precision
    noise = rng.normal(size=(2, n, labels)).round(1)  # equal scores happen
    return truth, *(noise + (truth == 1))


@pytest.mark.parametrize("seed", range(5))
def test_without_an_exchange_the_rankings_give_the_metric(seed):
    truth, a, b = multi_label(seed)
    rankings = Rankings(truth, a, b)
    stay = np.zeros(len(truth), dtype=bool)
    expected = map_11_point(truth, a) - map_11_point(truth, b)
    assert rankings.difference(stay, 0) == pytest.approx(expected)
    assert rankings.difference(stay, 1) == pytest.approx(expected)
    assert rankings.difference(~stay, 1) == pytest.approx(-expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("coin", [0, 1])
def test_an_exchange_is_the_metric_of_mixed_ranks(seed, coin):
    truth, a, b = multi_label(seed)
    swap = np.random.default_rng(seed).random(len(truth)) < 0.5
    mixed = np.zeros((2, *truth.shape))
    for k in range(truth.shape[1]):
        kept = np.flatnonzero(truth[:, k] >= 0)
        place_a, place_b = (np.argsort(np.argsort(-s[kept, k], kind="stable")) for s in (a, b))
        key_a, key_b = 2 * place_a + coin, 2 * place_b + 1 - coin
        mixed[0, kept, k] = np.where(swap[kept], key_b, key_a)
        mixed[1, kept, k] = np.where(swap[kept], key_a, key_b)
    expected = map_11_point(truth, -mixed[0]) - map_11_point(truth, -mixed[1])
    assert Rankings(truth, a, b).difference(swap, coin) == pytest.approx(expected)


def test_the_rank_exchange_does_not_mind_the_scale_of_scores():
    truth, a, b = multi_label(1)
    plain = rank_exchange(truth, a, b, draws=300, seed=0)
    assert rank_exchange(truth, a, 1000 * b - 7, draws=300, seed=0) == plain


def test_sequential_stops_with_the_hit_that_is_enough():
    values = np.random.default_rng(0).random(100_000)
    place = 0

    def draw(rng, size):
        nonlocal place
        place += size
        return values[place - size : place]

    p, draws = sequential(draw, 0.9, draws=100_000, seed=0, batch=77)
    hits = np.cumsum(values >= 0.9)
    assert draws == int(np.searchsorted(hits, ENOUGH_HITS)) + 1
    assert p == ENOUGH_HITS / draws
    place = 0
    p, draws = sequential(draw, 2.0, draws=1000, seed=0, batch=77)
    assert (p, draws) == (1 / 1001, 1000)


@pytest.mark.parametrize("metric", ["top_1", "mean_per_class", "map_11_point"])
def test_every_pair_is_tested_and_corrected(metric):
    models = [predictions(name, i, strength=s) for i, (name, s) in enumerate(THREE)]
    found = test_pairs(models, {"pets": metric}, draws=2000, map_draws=500)
    assert [(t.first, t.second) for t in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[0].p_value < 0.05 < found[2].p_value
    np.testing.assert_allclose([t.p_holm for t in found], holm([t.p_value for t in found]))
    if metric == "mean_per_class":
        first = mean_per_class(models[0].labels, models[0].scores)
        second = mean_per_class(models[1].labels, models[1].scores)
        assert found[0].difference == pytest.approx(first - second)
    again = test_pairs(models[1:], {"pets": metric}, draws=2000, map_draws=500)
    assert again[0].p_value == found[2].p_value


def test_rows_may_come_in_any_order():
    a, b = predictions("a", 0), predictions("b", 1)
    rows = np.random.default_rng(0).permutation(80)
    ids = tuple(b.ids[i] for i in rows)
    shuffled = Predictions("b", "pets", "linear_probe", b.scores[rows], b.labels[rows], ids)
    metrics = {"pets": "top_1"}
    assert test_pairs([a, shuffled], metrics) == test_pairs([a, b], metrics)


def test_the_lowest_seed_stands_for_a_backbone():
    models = [predictions("a", 5, seed=3), predictions("a", 6, seed=1), predictions("b", 7, seed=0)]
    assert test_pairs(models, {"pets": "top_1"}) == test_pairs(models[1:], {"pets": "top_1"})


def test_models_of_other_images_or_labels_are_not_compared():
    a = predictions("a", 0)
    other = predictions("b", 1, n=81)
    with pytest.raises(JoinError, match=r"b\.npz.*a\.npz.*different images"):
        test_pairs([a, other], {"pets": "top_1"})
    relabelled = predictions("b", 1, labels=(a.labels + 1) % 3)
    with pytest.raises(JoinError, match="different labels"):
        test_pairs([a, relabelled], {"pets": "top_1"})
    with pytest.raises(JoinError, match="metric is not known"):
        test_pairs([a], {})


def test_broken_predictions_are_refused():
    a = predictions("a", 0)
    twice = Predictions("b", "pets", "linear_probe", a.scores, a.labels, (*a.ids[:-1], a.ids[0]))
    with pytest.raises(JoinError, match="same id"):
        test_pairs([twice], {"pets": "top_1"})
    short = Predictions("b", "pets", "linear_probe", a.scores[1:], a.labels, a.ids)
    with pytest.raises(JoinError, match="do not fit"):
        test_pairs([short], {"pets": "top_1"})
    a.scores[3, 1] = np.nan
    with pytest.raises(JoinError, match=r"a\.npz.*NaN"):
        test_pairs([a, predictions("b", 1)], {"pets": "top_1"})


def test_the_set_that_ties_with_the_best_uses_raw_p():
    models = [predictions(name, i, strength=s, n=200) for i, (name, s) in enumerate(THREE)]
    tests = test_pairs(models, {"pets": "top_1"})
    best, kept = ties_with_best(tests, {"a": 0.4, "b": 0.9, "c": 0.91})
    assert (best, kept) == ("c", ["b", "c"])


@pytest.mark.slow
def test_mcnemar_has_its_exact_size():
    """Under exchangeability the rejections at 0.05 are as many as the discrete test allows."""
    rng = np.random.default_rng(0)
    n, draws = 40, 20_000
    p_discordant = 0.3
    rejected = 0
    for _ in range(draws):
        discordant = rng.random(n) < p_discordant
        side = rng.random(n) < 0.5
        rejected += mcnemar(discordant & side, discordant & ~side) <= 0.05
    sizes = []
    for m in range(n + 1):
        k = np.arange(m + 1)
        p = [stats.binomtest(int(i), m, 0.5).pvalue if m else 1.0 for i in k]
        sizes.append(stats.binom.pmf(k, m, 0.5)[np.array(p) <= 0.05].sum())
    exact = float(stats.binom.pmf(np.arange(n + 1), n, p_discordant) @ np.array(sizes))
    logging.getLogger(__name__).info(f"McNemar rejects {rejected / draws:.4f}, computed {exact:.4f}")
    assert exact <= 0.05
    assert rejected / draws == pytest.approx(exact, abs=4 * np.sqrt(exact / draws))


@pytest.mark.slow
def test_exchanges_agree_with_exact_mcnemar():
    """Two hundred pairs of models of one class: 100,000 exchanges against the exact p-value."""
    rng = np.random.default_rng(0)
    apart = []
    for trial in range(200):
        discordant = rng.random(80) < 0.3
        side = rng.random(80) < rng.uniform(0.5, 0.95)
        a, b = discordant & side, discordant & ~side
        p, draws = per_class_exchange(a, b, np.zeros(80, dtype=int), draws=100_000, seed=trial)
        exact = mcnemar(a, b)
        error = max(np.sqrt(exact * (1 - exact) / draws), p / np.sqrt(ENOUGH_HITS), 1 / draws)
        apart.append(abs(p - exact) / error)
    logging.getLogger(__name__).info(
        f"|p - exact| in standard errors: mean {np.mean(apart):.2f}, max {max(apart):.2f}"
    )
    assert np.mean(apart) < 1.2
    assert max(apart) < 5


@pytest.mark.slow
def test_the_rank_exchange_keeps_its_size_and_its_power():
    """Two models alike: at most 5 % found; one better: found as often whatever the scale of its scores."""
    rng = np.random.default_rng(0)
    alike = better = scaled = 0
    trials = 300
    for trial in range(trials):
        truth = (rng.random((120, 3)) < 0.2).astype(np.int8)
        truth[:2] = 1
        image = rng.normal(size=truth.shape) + truth
        a, b = image + rng.normal(size=truth.shape), image + rng.normal(size=truth.shape)
        good = image + 0.8 * truth + rng.normal(size=truth.shape)
        alike += rank_exchange(truth, a, b, draws=400, seed=trial)[0] <= 0.05
        p = rank_exchange(truth, a, good, draws=400, seed=trial)[0]
        better += p <= 0.05
        scaled += rank_exchange(truth, a, 100 * good, draws=400, seed=trial)[0] <= 0.05
    logging.getLogger(__name__).info(f"size {alike / trials:.3f}, power {better / trials:.3f}")
    assert alike / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert better == scaled
    assert better / trials > 0.5
