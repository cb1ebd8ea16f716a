"""Each score against a direct computation from its paper's definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf as scikit_learns

from stages.analysis.h_score import h_scores
from stages.analysis.leep import leep
from stages.analysis.logme import logme
from stages.analysis.transfer_scores import TRANSFERABILITY_SCORES, transferability
from stages.errors import InputError


def log_evidence(f, y, alpha, beta):
    """The density of y, w integrated out, with a dense covariance."""
    covariance = f @ f.T / alpha + np.eye(len(y)) / beta
    return stats.multivariate_normal.logpdf(y, np.zeros(len(y)), covariance)


def maximum(f, y):
    """The highest log evidence over a grid of starts, by Nelder-Mead on the logarithms."""
    tries = [
        optimize.minimize(
            lambda v: -log_evidence(f, y, *np.exp(v)),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000},
        )
        for start in ([0, 0], [3, 1], [-3, 3])
    ]
    best = min(tries, key=lambda one: one.fun)
    return -best.fun, np.exp(best.x)


@pytest.mark.parametrize(("n", "d"), [(40, 5), (40, 39), (24, 60)], ids=["n > d", "n near d", "n < d"])
def test_logme_is_the_maximum_of_the_log_evidence(blobs, n, d):
    f, labels = blobs(n, d=d, spread=0.6)
    f = f.astype(float)
    found = logme(f, labels, 3)
    assert found.converged.all()
    assert not found.at_bound.all()
    assert n < d or not found.at_bound.any()
    for k in range(3):
        y = (labels == k).astype(float)
        if found.at_bound[k]:
            # As many dimensions as rows: the labels may be likeliest without noise, where alpha has a closed form.
            gram = f @ f.T
            alpha = n / (y @ np.linalg.solve(gram, y))
            limit = stats.multivariate_normal.logpdf(y, np.zeros(n), gram / alpha)
            assert found.evidence[k] == pytest.approx(limit / n, abs=1e-9)
            assert limit >= max(log_evidence(f, y, alpha, b) for b in (1e2, 1e4, 1e6)) - 1e-6
            continue
        value, (alpha, beta) = maximum(f, y)
        assert found.evidence[k] == pytest.approx(value / n, abs=1e-8)
        assert found.alpha[k] == pytest.approx(alpha, rel=1e-3)
        assert found.beta[k] == pytest.approx(beta, rel=1e-3)
        assert found.evidence[k] == pytest.approx(
            log_evidence(f, y, found.alpha[k], found.beta[k]) / n, abs=1e-10
        )
    assert found.value == pytest.approx(np.mean(found.evidence), abs=1e-15)


def test_logme_of_one_class_is_the_textbook_form(blobs):
    """Eq. 2 of You et al. 2021, written out with A = alpha I + beta F'F."""
    f, labels = blobs(40, d=4)
    f, y = f.astype(float), (labels == 0).astype(float)
    found = logme(f, labels, 3)
    a, b = found.alpha[0], found.beta[0]
    A = a * np.eye(4) + b * f.T @ f
    m = b * np.linalg.solve(A, f.T @ y)
    n, d = f.shape
    value = (
        n / 2 * np.log(b)
        + d / 2 * np.log(a)
        - n / 2 * np.log(2 * np.pi)
        - b / 2 * np.square(f @ m - y).sum()
        - a / 2 * m @ m
        - np.linalg.slogdet(A)[1] / 2
    )
    assert found.evidence[0] == pytest.approx(value / n, abs=1e-10)
    gamma = np.sum(b * np.linalg.eigvalsh(f.T @ f) / (a + b * np.linalg.eigvalsh(f.T @ f)))
    assert a == pytest.approx(gamma / (m @ m), rel=1e-6)
    assert b == pytest.approx((n - gamma) / np.square(f @ m - y).sum(), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.sampled_from([1e-4, 0.3, 1e5]))
def test_logme_does_not_depend_on_the_features_scale(seed, scale):
    rng = np.random.default_rng(seed)
    labels = np.arange(36) % 3
    f = rng.normal(size=(36, 6)) + labels[:, None] * rng.normal(size=6)
    assert logme(f, labels, 3).value == pytest.approx(logme(scale * f, labels, 3).value, abs=1e-7)


def test_logme_of_features_that_say_nothing_is_that_of_noise_alone():
    labels = np.arange(40) % 2
    y = (labels == 0).astype(float)
    rng = np.random.default_rng(1)
    f = rng.normal(size=(40, 2))
    f -= labels[:, None] * f[labels == 1].mean(0) + (1 - labels)[:, None] * f[labels == 0].mean(0)
    found = logme(f, labels, 2)
    assert found.at_bound.all()
    noise = -0.5 * (np.log(2 * np.pi * np.square(y).mean()) + 1)
    assert found.value == pytest.approx(noise, abs=1e-9)


def test_logme_of_several_labels_leaves_their_ignored_rows_out(blobs, labels_with_ignored):
    f, _ = blobs(40, d=4)
    labels = labels_with_ignored(40, 3)
    found = logme(f, labels, 3)
    for k in range(3):
        kept = labels[:, k] >= 0
        alone = logme(f[kept], (labels[kept, k] == 1).astype(int), 2)
        assert found.evidence[k] == pytest.approx(alone.evidence[1], abs=1e-12)


def between(f, y):
    """Covariance of E[f | y], dividing by n."""
    g = np.stack([f[y == k].mean(axis=0) for k in y])
    return np.cov(g, rowvar=False, ddof=0)


def test_the_plain_h_score_is_its_definition(blobs):
    f, y = blobs(50, d=6)
    f = f.astype(float)
    expected = np.trace(np.linalg.pinv(np.cov(f, rowvar=False, ddof=0)) @ between(f, y))
    assert h_scores(f, y, 3).plain == pytest.approx(expected, rel=1e-9)
    # a constant column and a copy of another one: the pseudo-inverse of a singular covariance
    wide = np.hstack([f, f[:, :1], np.full((50, 1), 2.0)])
    assert h_scores(wide, y, 3).plain == pytest.approx(expected, rel=1e-9)
    # any invertible map leaves it alone
    turned = f @ np.random.default_rng(0).normal(size=(6, 6)) + 5
    assert h_scores(turned, y, 3).plain == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("d", [6, 80], ids=["n > d", "n < d"])
def test_the_shrinkage_h_score_is_its_definition(blobs, d):
    f, y = blobs(50, d=d)
    f = f.astype(float)
    covariance, shrinkage = scikit_learns(f)
    found = h_scores(f, y, 3)
    assert found.shrinkage == pytest.approx(shrinkage, rel=1e-9)
    expected = np.trace(np.linalg.inv(covariance) @ ((1 - shrinkage) * between(f, y)))
    assert found.shrunk == pytest.approx(expected, rel=1e-8)
    assert h_scores(7 * f, y, 3).shrunk == pytest.approx(expected, rel=1e-8)


def test_with_as_many_dimensions_as_rows_the_plain_h_score_is_k_minus_1_and_not_given(blobs):
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(20, 30)), np.arange(20) % 4
    pinv = np.trace(np.linalg.pinv(np.cov(f, rowvar=False, ddof=0)) @ between(f, y))
    assert pinv == pytest.approx(3)  # noise: the reason for the rule
    found = h_scores(f, y, 4)
    assert found.plain is None
    assert "20 rows of 30 dimensions" in found.reason
    assert found.shrunk < 3


def test_leep_is_its_definition():
    rng = np.random.default_rng(0)
    theta, y = softmax(rng.normal(size=(30, 5)), axis=1), np.arange(30) % 3
    joint = np.array([[theta[y == k, z].sum() / 30 for z in range(5)] for k in range(3)])
    conditional = joint / joint.sum(axis=0)
    expected = np.mean([np.log(sum(conditional[y[i], z] * theta[i, z] for z in range(5))) for i in range(30)])
    assert leep(theta, y) == pytest.approx(expected, rel=1e-12)
    assert leep(np.hstack([theta, np.zeros((30, 1))]), y) == pytest.approx(expected, rel=1e-12)
    assert leep(np.eye(3)[y], y) == 0
    assert leep(np.full((30, 5), 0.2), y) == pytest.approx(np.log(1 / 3))


def test_leep_refuses_logits_and_several_labels():
    with pytest.raises(InputError, match="look like logits"):
        leep(np.array([[3.0, -1.0]]), np.array([0]))
    with pytest.raises(InputError, match="LEEP needs one label"):
        leep(np.array([[0.5, 0.5]]), np.array([[1, 0]], np.int8))


def test_all_scores_of_a_table(blobs, table, labels_with_ignored):
    x, y = blobs(60)
    found = transferability(table(x, y), softmax(x, axis=1))
    assert tuple(one.name for one in found) == TRANSFERABILITY_SCORES
    assert all(one.value is not None and one.reason == "" for one in found)
    assert found[0].details["classes_not_converged"] == 0
    several = transferability(table(x, labels_with_ignored(60, 4)), softmax(x, axis=1))
    assert [one.value is None for one in several] == [False, True, True, True]
    assert all("multi-label" in one.reason for one in several[1:])


def test_what_is_not_defined_says_why(blobs, table):
    x, y = blobs(20, d=30)
    found = {one.name: one for one in transferability(table(x, y, K=4))}
    assert found["logme"].value is None
    assert found["logme"].reason.startswith("class 'c3' has no finite evidence")
    assert found["h_score"].value is None
    assert found["shrinkage_h_score"].value is not None
    assert found["leep"].reason == "no source probabilities are at hand"
