"""Ridge in closed form, against scikit-learn and against fits made again without a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from stages.analysis import blocks as blocks_module
from stages.analysis.reduction import reduce
from stages.analysis.ridge_regression import ridge
from stages.analysis.selection import Candidate, best_of
from stages.errors import InputError
from stages.metrics import evaluate
from stages.records import FeatureTable


def direct(x, targets, xt, strength):
    """Scikit-learn's ridge, its intercept free."""
    return np.asarray(
        Ridge(strength, solver="svd").fit(x.astype(float), targets).predict(xt.astype(float))
    ).reshape(len(xt), -1)


@pytest.mark.parametrize("d", [4, 90], ids=["n > d", "n < d"])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
def test_predictions_are_scikit_learns(blobs, table, d, strength):
    (x, y), (xt, yt) = blobs(45, d=d), blobs(20, d=d, seed=1)
    found = ridge(table(x, y), table(xt, yt), "top_1", lambdas=[strength])
    np.testing.assert_allclose(found.test_scores, direct(x, np.eye(3)[y], xt, strength), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("d", [4, 60], ids=["n > d", "n < d"])
@pytest.mark.parametrize("grouped", [False, True])
def test_leaving_out_is_what_fitting_again_without_the_rows_gives(blobs, table, d, grouped):
    x, y = blobs(31, d=d, spread=0.7)
    groups = tuple(str(i // 3) if i < 12 else "" for i in range(31)) if grouped else None
    units = [i // 3 if i < 12 and grouped else i for i in range(31)]
    grid = [0.1, 3.0, 100.0]
    found = ridge(table(x, y, groups=groups), table(x, y), "top_1", lambdas=grid)
    for candidate in found.selection:
        scores = np.zeros((31, 3))
        for unit in set(units):
            out = np.array([u == unit for u in units])
            scores[out] = direct(x[~out], np.eye(3)[y[~out]], x[out], candidate.setting)
        assert candidate.value == evaluate("top_1", y, scores)


def test_folds_are_fits_on_the_other_rows(blobs, table):
    x, y = blobs(40, spread=0.7)
    fold = np.arange(40) % 4
    found = ridge(table(x, y), table(x, y), "mean_per_class", lambdas=[0.5, 50.0], fold=fold)
    assert found.selection_method == "4-fold cross-validation over 40 rows"
    for candidate in found.selection:
        scores = np.zeros((40, 3))
        for f in range(4):
            kept = fold != f
            scores[~kept] = direct(x[kept], np.eye(3)[y[kept]], x[~kept], candidate.setting)
        assert candidate.value == evaluate("mean_per_class", y, scores)


def test_ignored_pairs_take_no_part_in_their_labels_fit(blobs, table, labels_with_ignored):
    (x, _), (xt, _) = blobs(50, d=6), blobs(20, d=6, seed=1)
    labels, test = labels_with_ignored(50, 4), labels_with_ignored(20, 4, seed=1)
    found = ridge(table(x, labels), table(xt, test), "map_11_point", lambdas=[2.0])
    for k in range(4):
        kept = labels[:, k] >= 0
        expected = direct(x[kept], labels[kept, k].astype(float), xt, 2.0)[:, 0]
        np.testing.assert_allclose(found.test_scores[:, k], expected, rtol=1e-8)
    # and left out, they are neither fitted nor scored
    scores = np.zeros((50, 4))
    for k in range(4):
        for i in np.flatnonzero(labels[:, k] >= 0):
            kept = (labels[:, k] >= 0) & (np.arange(50) != i)
            scores[i, k] = direct(x[kept], labels[kept, k].astype(float), x[i : i + 1], 2.0)[0, 0]
    assert found.selection[0].value == pytest.approx(evaluate("map_11_point", labels, scores), abs=1e-12)


def test_a_label_that_leaves_with_its_only_row_ranks_that_row_last(blobs, table):
    x, _ = blobs(20, d=4)
    labels = np.stack([np.arange(20) % 2, np.arange(20) == 7], axis=1).astype(np.int8)
    train = table(x, labels)
    scores = np.zeros((20, 2))
    for i in range(20):
        kept = np.arange(20) != i
        scores[i] = direct(x[kept], labels[kept].astype(float), x[i : i + 1], 5.0)
    scores[7, 1] = -np.inf
    found = ridge(train, train, "map_11_point", lambdas=[5.0]).selection[0].value
    assert found == pytest.approx(evaluate("map_11_point", labels, scores), abs=1e-12)
    scores[7, 1] = 0
    assert found < evaluate("map_11_point", labels, scores)


def test_the_default_strengths_follow_the_scale_of_the_features(blobs, table):
    (x, y), (xt, yt) = blobs(45), blobs(30, seed=1)
    one = ridge(table(x, y), table(xt, yt), "top_1")
    other = ridge(table(1024 * x, y), table(1024 * xt, yt), "top_1")
    assert [c.value for c in one.selection] == [c.value for c in other.selection]
    assert other.settings["l2_lambda"] == pytest.approx(1024**2 * one.settings["l2_lambda"])
    np.testing.assert_allclose(one.test_scores, other.test_scores, atol=1e-9)


def test_a_class_without_rows_is_never_said(blobs, table):
    x, y = blobs(30)
    found = ridge(table(x, y, K=4), table(x, y, K=4), "top_1", lambdas=[1.0])
    assert (found.test_scores[:, 3] == -np.inf).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 30), st.booleans(), st.integers(0, 99))
def test_the_reduction_keeps_the_problem(n, d, centre, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)) + 3, rng.normal(size=(n, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module.blocks, "__kwdefaults__", {"size": 7, "dtype": np.float64})
        found = reduce(x, y, centre=centre)
    a, b = (x - x.mean(0), y - y.mean(0)) if centre else (x, y)
    np.testing.assert_allclose(
        found.directions @ np.diag(found.singular_values**2) @ found.directions.T, a.T @ a, atol=1e-8
    )
    np.testing.assert_allclose(
        found.directions * found.singular_values @ found.projections, a.T @ b, atol=1e-8
    )
    best = np.linalg.lstsq(a, b, rcond=None)[0]
    np.testing.assert_allclose(found.outside, np.square(b - a @ best).sum(0), atol=1e-8)
    assert found.fourth_moment == pytest.approx(np.square(np.square(a).sum(1)).sum())


@pytest.mark.parametrize("lambdas", [[], [0.0], [-1.0], [np.inf]])
def test_strengths_that_are_none_are_refused(blobs, table, lambdas):
    x, y = blobs(30)
    with pytest.raises(InputError, match="finite and greater than 0"):
        ridge(table(x, y), table(x, y), "top_1", lambdas=lambdas)


def test_features_that_do_not_vary_are_refused(table):
    flat: FeatureTable = table(np.ones((6, 3), np.float32), [0, 1, 0, 1, 0, 1])
    with pytest.raises(InputError, match="same features"):
        ridge(flat, flat, "top_1")


def test_the_best_candidate_wins_and_of_equal_ones_the_smoothest():
    tried = [Candidate(1, 0.5), Candidate(2, 0.7), Candidate(4, 0.7 - 1e-14), Candidate(8, 0.6)]
    assert best_of(tried).setting == 4
    assert best_of(tried[:2]).setting == 2
    assert best_of([tried[1], tried[3]]).setting == 2
