import importlib.util
from pathlib import Path

import numpy as np
import pytest

from stages.records import FeatureTable


@pytest.fixture(scope="session")
def independent():
    """The dense solver beside these tests (importlib mode knows no sibling imports)."""
    spec = importlib.util.spec_from_file_location("independent", Path(__file__).with_name("independent.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def blobs():
    """Make (features float32, labels): K classes around centres, noise 1."""

    def make(n=60, d=5, K=3, spread=1.0, seed=0):
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % K
        centres = spread * rng.normal(size=(K, d))
        return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels

    return make


@pytest.fixture
def table():
    """Make a FeatureTable of features and labels."""

    def make(features, labels, K=None, **fields):
        K = K or (labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)
        ids = tuple(f"{i}" for i in range(len(labels)))
        return FeatureTable(features, labels, ids, tuple(f"c{k}" for k in range(K)), **fields)

    return make
