from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import ProbeError
from stages.probe.folds import make_folds
from stages.records import FeatureTable

PINNED = [0, 0, 2, 2, 0, 3, 1, 3, 2, 3, 1, 3, 3, 2, 0, 0, 3, 1, 1, 2, 1, 2, 1, 0]


def labelled(labels, K=None, **fields):
    labels = np.asarray(labels)
    K = K or (labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)
    ids = tuple(map(str, range(len(labels))))
    return FeatureTable(
        np.zeros((len(labels), 1), np.float32), labels, ids, tuple(f"c{k}" for k in range(K)), **fields
    )


@given(st.lists(st.integers(0, 4), min_size=4, max_size=80), st.integers(2, 6), st.integers(0, 2**31))
def test_folds_are_stratified_and_a_partition(labels, count, seed):
    sizes = np.bincount(labels)
    if not (sizes > 1).any():
        return
    made = make_folds(labelled(labels), count, seed)
    assert made.count == min(count, sizes[sizes > 1].min())
    assert set(made.fold) == set(range(made.count))
    for k in np.flatnonzero(sizes):
        per_fold = np.bincount(made.fold[np.array(labels) == k], minlength=made.count)
        assert per_fold.max() - per_fold.min() <= 1
    everywhere = np.bincount(made.fold, minlength=made.count)
    assert everywhere.max() - everywhere.min() <= 1


def test_same_seed_same_folds_on_every_machine():
    table = labelled(np.arange(24) % 3)
    first, second = make_folds(table, 4, seed=7), make_folds(table, 4, seed=7)
    assert np.array_equal(first.fold, second.fold)
    assert not np.array_equal(first.fold, make_folds(table, 4, seed=8).fold)
    # PCG64 and a stable sort: these very folds, wherever it runs.
    assert first.fold.tolist() == PINNED


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_groups_and_identical_images_stay_together(seed, multi):
    rng = np.random.default_rng(seed)
    n = 40
    labels = (
        np.arange(n) % 2
        if not multi
        else np.stack([np.arange(n) % 2, np.arange(n) % 3 == 0], 1).astype(np.int8)
    )
    groups = tuple(f"g{g}" if g < 8 else "" for g in rng.integers(0, 16, n))
    digests = tuple(f"{d}" for d in rng.integers(0, 200, n))  # few coincide, or all rows would be one unit
    fold = make_folds(labelled(labels, groups=groups, image_sha256=digests), 3, seed).fold
    for key in (groups, digests):
        for value in set(key) - {""}:
            assert len({int(fold[i]) for i in range(n) if key[i] == value}) == 1


def test_multi_label_folds_share_out_rare_labels():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 4)) < [0.5, 0.3, 0.1, 0.05]).astype(np.int8)
    labels[rng.random(labels.shape) < 0.05] = -1
    fold = make_folds(labelled(labels), 5, seed=0).fold
    for k in range(4):
        counts = np.bincount(fold[labels[:, k] == 1], minlength=5)
        assert counts.max() - counts.min() <= 2


def test_small_classes_lower_the_number_of_folds():
    made = make_folds(labelled([0] * 10 + [1] * 3), 5, seed=0)
    assert made.count == 3
    assert made.notes == ("3 folds instead of 5: class 'c1' has 3 rows or groups",)


def test_a_class_of_one_row_is_said_to_count_as_errors():
    made = make_folds(labelled([0] * 10 + [1] * 10 + [2]), 5, seed=0)
    assert made.count == 5
    assert "1 of 3 classes have a single row" in made.notes[0]


def test_one_row_a_class_cannot_be_cross_validated():
    with pytest.raises(ProbeError, match="single row"):
        make_folds(labelled(np.arange(5)), 5, seed=0)
    with pytest.raises(ProbeError, match="single row"):
        make_folds(labelled([0, 0, 1, 1], groups=("a", "a", "b", "b")), 2, seed=0)
    with pytest.raises(ProbeError, match="at least two"):
        make_folds(labelled([0, 0, 1, 1]), 1, seed=0)


def test_more_rows_never_share_fewer_folds():
    counts = [make_folds(labelled([0] * n + [1] * n), 5, seed=0).count for n in range(2, 8)]
    assert all(a <= b for a, b in pairwise(counts))
