import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

from stages.errors import InputError
from stages.metrics import (
    average_precisions,
    calibration_error,
    class_counts,
    evaluate,
    log_loss,
    logit,
    logit_epsilon,
    map_11_point,
    mean_per_class,
    mean_per_class_from_counts,
    top_1,
)


def kit_average_precision(labels, scores):
    """VOCevalcls of the VOC2007 development kit, line by line, with exact recall."""
    ranked = sorted((i for i in range(len(labels)) if labels[i] >= 0), key=lambda i: -scores[i])
    positives = sum(labels[i] == 1 for i in ranked)
    points, tp, fp = [], 0, 0
    for i in ranked:
        tp, fp = tp + (labels[i] == 1), fp + (labels[i] == 0)
        points.append((Fraction(tp, positives), Fraction(tp, tp + fp)))
    ap = Fraction(0)
    for j in range(11):
        ap += max((p for r, p in points if r >= Fraction(j, 10)), default=Fraction(0)) / 11
    return float(ap)


pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int8, n, elements=st.integers(-1, 1)),
        hnp.arrays(np.float64, n, elements=st.integers(-5, 5).map(float)),
    )
)


@given(pairs)
def test_average_precision_is_the_development_kits(pair):
    labels, scores = pair
    ours = average_precisions(labels[:, None], scores[:, None])[0]
    if not (labels == 1).any():
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(kit_average_precision(labels.tolist(), scores.tolist()), abs=1e-12)


def test_recall_is_compared_in_integers():
    # Three of ten positives found is a recall of exactly 0.3, which 0.1 * 3 in floats exceeds.
    labels = np.array([1, 1, 1] + [0] * 50 + [1] * 7, dtype=np.int8)
    scores = -np.arange(len(labels), dtype=float)
    expected = (4 * 1.0 + 7 * (10 / 60)) / 11
    assert average_precisions(labels[:, None], scores[:, None])[0] == pytest.approx(expected, abs=1e-12)


@given(pairs, st.integers(0, 2**32 - 1))
def test_ignored_pairs_change_nothing(pair, seed):
    labels, scores = pair
    kept = labels >= 0
    if not (labels == 1).any():
        return
    alone = map_11_point(labels[kept][:, None], scores[kept][:, None])
    assert map_11_point(labels[:, None], scores[:, None]) == alone


def test_map_leaves_out_labels_without_positives():
    labels = np.array([[1, 0], [0, 0]], dtype=np.int8)
    assert map_11_point(labels, np.array([[1.0, 0.0], [0.0, 1.0]])) == 1.0
    with pytest.raises(InputError, match="no label has a positive"):
        map_11_point(labels[:, 1:], np.zeros((2, 1)))


def test_map_of_single_labels_is_one_against_the_rest():
    labels, scores = np.array([0, 1, 1]), np.array([[3.0, 0], [2, 1], [1, 2]])
    one_hot = (labels[:, None] == np.arange(2)).astype(np.int8)
    assert map_11_point(labels, scores) == map_11_point(one_hot, scores)


@given(st.integers(0, 10_000))
def test_accuracies_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 30)
    scores = rng.normal(size=(30, 4))
    assert top_1(labels, scores) == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert mean_per_class(labels, scores) == pytest.approx(
        np.mean([(scores.argmax(1)[labels == k] == k).mean() for k in np.unique(labels)])
    )


def test_mean_per_class_of_all_classes_is_balanced_accuracy():
    labels, scores = np.array([0, 0, 0, 1]), np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert mean_per_class(labels, scores) == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


def test_equal_rationals_are_equal_floats():
    totals = np.array([3, 6, 7])
    assert mean_per_class_from_counts(np.array([1, 0, 2]), totals) == mean_per_class_from_counts(
        np.array([0, 2, 2]), totals
    )


def test_counts_of_folds_add_up():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, 20), rng.normal(size=(20, 3))
    whole, parts = class_counts(labels, scores), [class_counts(labels[i::2], scores[i::2]) for i in (0, 1)]
    assert all((parts[0][i] + parts[1][i] == whole[i]).all() for i in (0, 1))


@given(st.integers(0, 10_000), st.sampled_from(["top_1", "mean_per_class", "map_11_point"]))
def test_metrics_see_the_order_only(seed, metric):
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 3, 20), rng.normal(size=(20, 3))
    assert evaluate(metric, labels, scores) == evaluate(metric, labels, np.tanh(scores / 4))
    assert 0 <= evaluate(metric, labels, scores) <= 1


def test_log_loss_agrees_with_scikit_learn_and_is_infinite_at_zero():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), size=12)
    labels = np.arange(12) % 3
    assert log_loss(labels, np.log(p) + 3) == pytest.approx(sklearn_log_loss(labels, p))
    assert log_loss(np.array([0]), np.array([[-math.inf, 1.0]])) == math.inf
    multi = np.array([[1, 0, -1]], dtype=np.int8)
    assert log_loss(multi, np.array([[0.0, 0.0, -800.0]])) == pytest.approx(math.log(2))


def test_log_loss_of_logits_whose_probabilities_are_rounded():
    assert log_loss(np.array([1]), np.array([[800.0, 0.0, 0.0]])) == pytest.approx(800)
    multi = np.array([[0, 1], [0, 1]], dtype=np.int8)
    assert log_loss(multi, np.array([[40.0, -1.0], [-1.0, 2.0]])) == pytest.approx(10.4384, rel=1e-5)


def test_labels_that_are_all_ignored_have_no_figures():
    nobody = np.full((2, 3), -1, dtype=np.int8)
    assert math.isnan(log_loss(nobody, np.zeros((2, 3))))
    assert math.isnan(calibration_error(nobody, np.full((2, 3), 0.5)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.bool_, np.float16])
def test_scores_of_any_kind_are_ranked_alike(dtype):
    scores = np.array([[1], [0], [1]]).astype(dtype)
    assert evaluate("map_11_point", np.array([[1], [0], [1]], np.int8), scores) == 1
    if dtype is np.uint8:
        assert evaluate("map_11_point", np.array([[1], [0], [1]], np.int8), scores * dtype(255)) == 1


def test_calibration_error_by_hand():
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    # Bins of width 1/15: two rows at 0.8, one right; two at 0.6, both right.
    assert calibration_error(np.array([0, 1, 0, 1]), p) == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)


def test_logit_and_its_clamp():
    assert logit(0.5) == 0
    assert logit([0.0, 1.0]).tolist() == [-math.inf, math.inf]
    assert logit(1.0, 0.01) == pytest.approx(math.log(99))
    labels = np.array([0, 0, 1])
    assert logit_epsilon("top_1", labels) == 1 / 8
    assert logit_epsilon("mean_per_class", labels) == 1 / (2 * 2 * 3)
    multi = np.array([[1, 0], [1, 1], [-1, 0]], dtype=np.int8)
    assert logit_epsilon("map_11_point", multi) == 1 / (2 * 2 * 3)
    with pytest.raises(InputError, match="percent"):
        logit(74.8)


@pytest.mark.parametrize(
    ("metric", "labels", "scores", "message"),
    [
        ("accuracy", [0], [[1.0]], "unknown"),
        ("top_1", [0, 1], [[1.0, 0.0]], "do not fit"),
        ("top_1", [], np.zeros((0, 2)), "do not fit"),
        ("top_1", [0], [[np.nan, 0.0]], "NaN"),
        ("top_1", [2], [[1.0, 0.0]], "integers from 0 to 1"),
        ("top_1", [-1], [[1.0, 0.0]], "integers from 0 to 1"),
        ("top_1", [0.5], [[1.0, 0.0]], "integers"),
        ("top_1", [[1, 0]], [[1.0, 0.0]], "one label an image"),
        ("map_11_point", [[1, 2]], [[1.0, 0.0]], "another value"),
        ("map_11_point", [[1]], [[1.0, 0.0]], "differ in shape"),
    ],
)
def test_bad_input_is_refused(metric, labels, scores, message):
    with pytest.raises(InputError, match=message):
        evaluate(metric, np.array(labels), np.array(scores))


def test_logits_are_no_probabilities():
    with pytest.raises(InputError, match="logits"):
        calibration_error(np.array([0]), np.array([[3.0, -1.0]]))
