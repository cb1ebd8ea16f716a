"""Votes of neighbours and class means, against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from stages.analysis import search
from stages.analysis.class_means import nearest_class_mean
from stages.analysis.neighbours import k_nearest_neighbours
from stages.analysis.readouts import read_out, together
from stages.analysis.search import nearest_rows
from stages.analysis.selection import folds_of
from stages.errors import InputError
from stages.metrics import evaluate


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(2, 60),
    st.integers(1, 12),
    st.sampled_from(["cosine", "euclidean"]),
    st.integers(0, 9),
)
def test_the_nearest_rows_are_those_of_a_full_sort(q, n, k, distance, seed):
    rng = np.random.default_rng(seed)
    # Few different values: ties everywhere.
    queries, base = (rng.integers(-2, 3, size=(m, 3)).astype(np.float32) for m in (q, n))
    k = min(k, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "QUERY_ROWS", 7)
        patch.setattr(search, "BASE_ROWS", 5)
        found = nearest_rows(queries, base, k, distance=distance)
    if distance == "euclidean":
        close = -np.square(queries[:, None].astype(float) - base).sum(axis=2)
    else:
        units = [search.unit_rows(x) for x in (queries, base)]
        close = np.array([[float(np.float32(a @ b)) for b in units[1]] for a in units[0]])
    expected = np.sort(close, axis=1)[:, ::-1][:, :k]
    np.testing.assert_allclose(found.closeness, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(close, found.rows, axis=1), expected, atol=1e-6)
    assert all(len(set(rows)) == k for rows in found.rows.tolist())
    if distance == "euclidean":  # exact: of equally near rows the lower ones, in order
        assert (found.rows == np.argsort(-close, axis=1, kind="stable")[:, :k]).all()


def test_a_row_is_no_neighbour_of_itself_where_that_is_asked(blobs):
    features, _ = blobs(30)
    found = nearest_rows(features, features, 3, exclude_self=True)
    assert not (found.rows == np.arange(30)[:, None]).any()
    with pytest.raises(InputError, match="30 neighbours wanted of 29 rows"):
        nearest_rows(features, features, 30, exclude_self=True)


@pytest.mark.parametrize(("vote", "weights"), [("uniform", "uniform"), ("inverse_distance", "distance")])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_euclidean_votes_are_scikit_learns(blobs, table, vote, weights, k):
    (x, y), (xt, yt) = blobs(90), blobs(40, seed=1)
    found = k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", ks=[k], distance="euclidean", vote=vote)
    theirs = KNeighborsClassifier(k, weights=weights).fit(x.astype(float), y).predict_proba(xt.astype(float))
    np.testing.assert_allclose(found.test_scores, theirs, atol=1e-9)
    assert found.value == evaluate("top_1", yt, theirs)
    assert found.selection == ()


def test_the_exponential_vote_is_that_of_its_formula(blobs, table):
    (x, y), (xt, yt) = blobs(50), blobs(10, seed=1)
    found = k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", ks=[7], temperature=0.1)
    for row, scores in zip(xt.astype(float), found.test_scores, strict=True):
        cosines = x @ row / np.linalg.norm(x.astype(float), axis=1) / np.linalg.norm(row)
        votes = np.zeros(3)
        for i in np.argsort(-cosines)[:7]:
            votes[y[i]] += np.exp(cosines[i] / 0.1)
        np.testing.assert_allclose(scores, votes / votes.sum(), atol=1e-4)


def test_k_is_chosen_on_rows_that_do_not_vote(blobs, table):
    (x, y), (xt, yt) = blobs(60), blobs(40, seed=1)
    fold = np.where(np.arange(60) < 40, -1, 0)
    found = k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", ks=[1, 3, 9, 30], fold=fold)
    values = [
        k_nearest_neighbours(table(x[:40], y[:40]), table(x[40:], y[40:]), "top_1", ks=[k]).value
        for k in (1, 3, 9, 30)
    ]
    assert [c.value for c in found.selection] == values
    assert found.selection_method == "validation on 20 of 60 rows"
    best = max((v, k) for v, k in zip(values, (1, 3, 9, 30), strict=True))[1]
    assert found.settings["k"] == best
    fixed = k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", ks=[best])
    assert (found.test_scores == fixed.test_scores).all()


def test_k_that_a_fold_cannot_grant_is_left_out_and_told(blobs, table):
    (x, y), (xt, yt) = blobs(30), blobs(9, seed=1)
    found = k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", ks=[1, 5, 200])
    assert [c.setting for c in found.selection] == [1, 5]
    assert found.warnings == ("k above 24 left out: no more training rows vote in a fold",)
    with pytest.raises(InputError, match="larger than the 24 rows"):
        k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", ks=[100, 200])


def test_neighbours_that_ignore_a_label_do_not_vote_on_it(table):
    x = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    labels = np.array([[1, -1], [0, 1], [0, 0]], np.int8)
    test = table(np.array([[1, 0.05]], np.float32), np.array([[1, 1]], np.int8))
    found = k_nearest_neighbours(table(x, labels), test, "map_11_point", ks=[2], vote="uniform")
    np.testing.assert_allclose(found.test_scores, [[0.5, 1.0]])


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_class_means_are_scikit_learns(blobs, table, distance):
    (x, y), (xt, yt) = blobs(60), blobs(33, seed=1)
    found = nearest_class_mean(table(x, y), table(xt, yt), "top_1", distance=distance)
    a, b = x.astype(float), xt.astype(float)
    if distance == "cosine":
        a /= np.linalg.norm(a, axis=1)[:, None]
        means = np.stack([a[y == k].mean(axis=0) for k in range(3)])
        predicted = (b @ (means / np.linalg.norm(means, axis=1)[:, None]).T).argmax(axis=1)
    else:
        predicted = NearestCentroid().fit(a, y).predict(b)
    assert (found.test_scores.argmax(axis=1) == predicted).all()


def test_a_class_without_training_rows_is_never_said(blobs, table):
    (x, y), (xt, yt) = blobs(60), blobs(30, seed=1)
    found = nearest_class_mean(table(x, y, K=4), table(xt, yt, K=4), "mean_per_class")
    assert (found.test_scores[:, 3] == -np.inf).all()
    assert found.warnings == ("1 classes without a training row, the first is 'c3'",)


def test_a_mapped_float16_table_gives_what_it_gives_in_memory(blobs, table, tmp_path):
    (x, y), (xt, yt) = blobs(60), blobs(30, seed=1)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for one, other in zip(
        read_out(table(mapped, y), table(xt, yt), "top_1"),
        read_out(table(x.astype(np.float16), y), table(xt, yt), "top_1"),
        strict=True,
    ):
        assert (one.test_scores == other.test_scores).all()


def test_read_outs_of_multi_label_rows_leave_class_means_out(blobs, table, labels_with_ignored):
    (x, _), (xt, _) = blobs(60), blobs(30, seed=1)
    train, test = table(x, labels_with_ignored(60, 4)), table(xt, labels_with_ignored(30, 4, seed=1))
    found = read_out(train, test, "map_11_point")
    assert [one.name for one in found] == ["k_nearest_neighbours", "ridge"]
    with pytest.raises(InputError, match="nearest class mean needs one label an image"):
        nearest_class_mean(train, test, "map_11_point")
    with pytest.raises(InputError, match="use map_11_point"):
        k_nearest_neighbours(train, test, "top_1")


def test_folds_keep_identical_images_together(blobs, table):
    x, y = blobs(60)
    hashes = tuple(str(i // 2) for i in range(60))
    y = np.repeat(np.arange(30) % 3, 2)
    fold = folds_of(table(x, y, image_sha256=hashes), 5)
    assert (fold[::2] == fold[1::2]).all()
    assert set(fold.tolist()) == set(range(5))
    both = together(table(x, y, image_sha256=hashes), table(x, y))
    assert both.image_sha256 == hashes + ("",) * 60
    assert both.groups is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": []}, "whole numbers above 0"),
        ({"ks": [500]}, "k = 500 neighbours of 30"),
        ({"vote": "loud"}, "vote 'loud' is unknown"),
        ({"distance": "manhattan", "vote": "uniform"}, "distance 'manhattan' is unknown"),
        ({"distance": "euclidean", "vote": "exponential"}, "weighs cosines"),
        ({"temperature": 0.0}, "temperature"),
        ({"fold": np.zeros(30, int)}, "no rows to fit"),
        ({"fold": np.zeros(3, int)}, "one integer for each of the 30 rows"),
    ],
)
def test_wrong_arguments_are_one_line(blobs, table, change, message):
    (x, y), (xt, yt) = blobs(30), blobs(9, seed=1)
    with pytest.raises(InputError, match=message) as caught:
        k_nearest_neighbours(table(x, y), table(xt, yt), "top_1", **change)
    assert "\n" not in str(caught.value)


def test_entries_of_two_backbones_and_bad_features_are_refused(blobs, table):
    x, y = blobs(30)
    with pytest.raises(InputError, match="5 dimensions and test of 4"):
        read_out(table(x, y), table(x[:, :4], y), "top_1")
    broken = x.copy()
    broken[7, 2] = np.nan
    with pytest.raises(InputError, match="test: NaN or infinity, first in row 7"):
        read_out(table(x, y), table(broken, y), "top_1")
    with pytest.raises(InputError, match="different classes"):
        read_out(table(x, y), table(x, y, K=5), "top_1")
