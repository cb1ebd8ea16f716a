"""Features that are read a block at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.probe import fit_probe
from stages.probe.rows import Rows
from stages.probe.scaling import scaled
from stages.records import FeatureTable


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    start=st.integers(0, 22),
    stop=st.integers(0, 22),
    scale=st.booleans(),
)
def test_rows_are_those_of_the_arrays_put_together(
    sizes: list[int], start: int, stop: int, scale: bool
) -> None:
    parts = [np.arange(3 * n, dtype=np.float32).reshape(n, 3) + 100 * k for k, n in enumerate(sizes)]
    factors = np.array([1.0, 0.5, 3.0]) if scale else None
    whole = np.concatenate(parts) * (1.0 if factors is None else factors)
    rows = Rows(parts, factors)
    assert rows.shape == whole.shape
    assert len(rows) == len(whole)
    np.testing.assert_array_equal(rows[start:stop], whole[start:stop])


def test_columns_are_scaled_by_the_fitted_rows_alone() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4)).astype(np.float32) * [1, 10, 0, 1e-6] + np.float32(0.1)
    features[10, 2] = 5.0
    fitted = np.arange(50) % 5 != 0
    rows, factors = scaled(features, fitted)
    expected = features[fitted].astype(np.float64).std(axis=0)
    np.testing.assert_allclose(factors, 1 / np.where([True, True, False, True], expected, 1.0))
    assert factors[2] == 1.0
    np.testing.assert_allclose(rows[0:50][fitted].std(axis=0)[[0, 1, 3]], 1.0)


def test_a_validation_split_of_its_own_counts_like_rows_of_one_table() -> None:
    rng = np.random.default_rng(1)
    y = np.arange(60) % 3
    x = (rng.normal(size=(60, 5)) + y[:, None]).astype(np.float32)

    def table(rows: slice) -> FeatureTable:
        ids = tuple(str(i) for i in range(60)[rows])
        return FeatureTable(x[rows], y[rows], ids, ("a", "b", "c"))

    for scaling in ("none", "standardise"):
        options = {"metric": "top_1", "lambdas": [10.0, 1.0], "folds": 3, "scaling": scaling}
        apart = fit_probe(table(slice(0, 30)), table(slice(30, 45)), table(slice(45, 60)), **options)
        whole = fit_probe(table(slice(0, 45)), None, table(slice(45, 60)), **options)
        np.testing.assert_array_equal(apart.coefficients, whole.coefficients)
        assert apart.n_train == whole.n_train
