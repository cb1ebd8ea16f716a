from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stages.records import FeatureTable


@pytest.fixture
def table() -> Callable[..., FeatureTable]:
    """Make a FeatureTable of features and labels."""

    def make(features, labels, K=None, ids=None, **fields):
        labels = np.asarray(labels)
        K = K or (labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)
        ids = ids or tuple(f"{i}" for i in range(len(labels)))
        return FeatureTable(features, labels, ids, tuple(f"c{k}" for k in range(K)), **fields)

    return make


@pytest.fixture
def blobs() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Make (features float32, labels): K classes around centres that a seed fixes, noise 1."""

    def make(n=60, d=5, K=3, spread=1.5, seed=0):
        rng = np.random.default_rng([seed, n])
        centres = spread * np.random.default_rng(99).normal(size=(K, d))
        labels = np.arange(n) % K
        return (centres[labels] + rng.normal(size=(n, d)) + 1).astype(np.float32), labels

    return make


@pytest.fixture
def labels_with_ignored() -> Callable[..., np.ndarray]:
    """Make (n, K) of 1, 0 and some -1."""

    def make(n, K, seed=0, ignored=0.1):
        rng = np.random.default_rng(seed)
        labels = (rng.random((n, K)) < 0.4).astype(np.int8)
        labels[rng.random((n, K)) < ignored] = -1
        labels[:2] = [[1], [0]]
        return labels

    return make
