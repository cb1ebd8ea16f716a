import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import stages.probe.fits
from stages.errors import InputError, ProbeError
from stages.metrics import evaluate
from stages.probe import certify, fit_path, fit_probe, select_lambda
from stages.records import SelectionRow

GRID = [1e3, 1e1, 1e-1]


def test_cross_validation_by_hand(blobs, table):
    X, y = blobs(90, 6, 3)
    result = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=GRID, tolerance=1e-9)
    for row in result.selection:
        hits = 0
        for f in range(5):
            fitted, held = result.folds != f, result.folds == f
            model = LogisticRegression(C=1 / row.l2_lambda, tol=1e-10, max_iter=10_000)
            model.fit(X[fitted].astype(float), y[fitted])
            hits += int((model.predict(X[held]) == y[held]).sum())
        assert row.value == hits / 90
        assert row.converged
    assert [row.l2_lambda for row in result.selection] == GRID
    assert "5-fold cross-validation" in result.selection_method


@pytest.mark.parametrize("shape", [(90, 6), (40, 60)])
@pytest.mark.parametrize("columns", [1, 128])
def test_folds_side_by_side_or_one_by_one_agree(blobs, table, monkeypatch, shape, columns):
    X, y = blobs(*shape, 3)
    monkeypatch.setattr("stages.probe.scan.TOGETHER_COLUMNS", columns)
    result = fit_probe(table(X, y), None, table(X, y), metric="mean_per_class", lambdas=GRID, tolerance=1e-9)
    model = LogisticRegression(C=1 / result.l2_lambda, tol=1e-10, max_iter=10_000).fit(X.astype(float), y)
    assert result.coefficients == pytest.approx(model.coef_, abs=1e-4)
    assert result.test_scores == pytest.approx(model.predict_proba(X), abs=1e-4)
    values = [row.value for row in result.selection]
    monkeypatch.setattr("stages.probe.scan.TOGETHER_COLUMNS", 129 - columns)
    again = fit_probe(table(X, y), None, table(X, y), metric="mean_per_class", lambdas=GRID, tolerance=1e-9)
    assert [row.value for row in again.selection] == values


@pytest.mark.parametrize("grid", [[*GRID, 1e-3, 1e5], GRID, GRID[1:], [1.0]])
def test_known_lambdas_are_not_fitted_again(blobs, table, monkeypatch, grid):
    X, y = blobs(90, 6, 3)
    X += 2 * np.random.default_rng(3).normal(size=X.shape).astype(X.dtype)
    tables = table(X, y), None, table(X[::2], y[::2])
    before = fit_probe(*tables, metric="top_1", lambdas=GRID)
    whole = fit_probe(*tables, metric="top_1", lambdas=grid)
    scanned = []
    scan = stages.probe.fits.scan

    def watched(*arguments, **named):
        scanned.append(arguments[4].tolist())
        return scan(*arguments, **named)

    monkeypatch.setattr("stages.probe.fits.scan", watched)
    again = fit_probe(*tables, metric="top_1", lambdas=np.array(grid) * (1 + 1e-14), known=before.selection)
    new = sorted(set(grid) - set(GRID), reverse=True)
    assert [strength for one in scanned for strength in one] == [strength * (1 + 1e-14) for strength in new]
    assert [row.reused for row in again.selection] == [strength in GRID for strength in grid]
    assert [row.value for row in again.selection] == [row.value for row in whole.selection]
    assert again.l2_lambda == pytest.approx(whole.l2_lambda)
    assert again.value == whole.value
    assert certify(X, y, again.coefficients, again.intercepts, again.l2_lambda).converged


def test_refit_is_certified_on_all_rows(blobs, table):
    X, y = blobs(80, 5, 4)
    result = fit_probe(
        table(X[:60], y[:60]), table(X[60:], y[60:]), table(X, y), metric="top_1", lambdas=GRID
    )
    seen = certify(X, y, result.coefficients, result.intercepts, result.l2_lambda)
    assert seen.converged
    assert seen.objective == pytest.approx(result.extras["objective"], rel=1e-9)
    assert (result.n_train, result.n_test) == (80, 80)


def test_validation_split_carries_lambda_unscaled(blobs, table):
    X, y = blobs(120, 5, 3)
    train, validation, test = (table(X[s], y[s]) for s in (slice(0, 60), slice(60, 90), slice(90, 120)))
    both = fit_probe(
        train, validation, test, metric="top_1", lambdas=GRID, selection="validation", tolerance=1e-9
    )
    for row in both.selection:
        model = LogisticRegression(C=1 / row.l2_lambda, tol=1e-10, max_iter=10_000).fit(
            X[:60].astype(float), y[:60]
        )
        assert row.value == (model.predict(X[60:90]) == y[60:90]).mean()
    refit = LogisticRegression(C=1 / both.l2_lambda, tol=1e-10, max_iter=10_000).fit(
        X[:90].astype(float), y[:90]
    )
    assert both.coefficients == pytest.approx(refit.coef_, abs=1e-4)
    assert both.folds.tolist() == [-1] * 60 + [0] * 30
    alone = fit_probe(
        train,
        validation,
        test,
        metric="top_1",
        lambdas=[both.l2_lambda],
        selection="validation",
        refit="train",
    )
    assert alone.n_train == 60


def test_without_a_validation_split_a_share_of_train_is_held_out(blobs, table):
    X, y = blobs(100, 4, 2)
    groups = tuple(f"{i // 2}" for i in range(100))
    result = fit_probe(
        table(X, y, groups=groups), None, table(X, y), metric="top_1", lambdas=GRID, selection="validation"
    )
    held = result.folds == 0
    assert held.sum() == 20
    assert np.array_equal(held[::2], held[1::2])


@pytest.mark.parametrize("K", [2, 3])
def test_scores_are_probabilities_and_give_the_value(blobs, table, K):
    X, y = blobs(80, 5, K)
    result = fit_probe(table(X[:60], y[:60], K), None, table(X[60:], y[60:], K), metric="top_1", lambdas=GRID)
    assert result.test_scores.shape == (20, K)
    assert result.test_scores.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert result.value == evaluate("top_1", y[60:], result.test_scores)
    assert result.coefficients.shape == (1 if K == 2 else K, 5)


def test_multi_label_ranks_by_logits(blobs, table):
    X, y = blobs(90, 5, 3, spread=20)
    Y = (y[:, None] == np.arange(3)).astype(np.int8)
    Y[::7, 0] = -1
    result = fit_probe(table(X, Y), None, table(X, Y), metric="map_11_point", lambdas=[1e-5, 1e-6])
    assert result.value == evaluate("map_11_point", Y, result.test_logits)
    assert result.coefficients.shape == (3, 5)
    assert result.multi_label


def test_a_class_without_training_rows_has_probability_zero(blobs, table):
    X, y = blobs(60, 4, 3)
    kept = y < 2
    result = fit_probe(table(X[kept], y[kept], 3), None, table(X, y, 3), metric="top_1", lambdas=GRID)
    assert not result.test_scores[:, 2].any()
    assert result.extras["log_loss"] == np.inf
    assert any("no rows" in line for line in result.warnings)


def test_a_class_torn_out_of_a_fold_counts_as_errors(table):
    rng = np.random.default_rng(0)
    y = np.array([0] * 20 + [1] * 20 + [2])
    X = (rng.normal(size=(41, 3)) * 0.01 + 10 * np.eye(3)[y]).astype(np.float32)
    result = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=[1.0, 0.1])
    assert {row.value for row in result.selection} == {40 / 41}
    assert any("single row" in line for line in result.warnings)


def test_ties_go_to_the_stronger_lambda_and_a_grid_that_decides_nothing_is_said(blobs, table):
    rows = [SelectionRow(1.0, 0.5, True), SelectionRow(10.0, 0.5 - 1e-13, True), SelectionRow(0.1, 0.4, True)]
    assert select_lambda(rows).l2_lambda == 10.0
    X, y = blobs(60, 4, 2, spread=50)
    result = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=[1e-3, 1.0, 1e-1])
    assert result.l2_lambda == 1.0
    assert any("every lambda of the grid scores the same" in line for line in result.warnings)


def test_standardised_features_are_scaled_by_the_fitted_rows(blobs, table):
    X, y = blobs(80, 4, 3)
    X = X * np.float32([1, 100, 0.01, 1])
    result = fit_probe(
        table(X, y), None, table(X, y), metric="top_1", lambdas=[1.0], scaling="standardise", tolerance=1e-9
    )
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit((X / X.std(axis=0)).astype(float), y)
    assert result.coefficients * X.std(axis=0) == pytest.approx(model.coef_, abs=1e-3)


def test_missed_tolerance_is_told(blobs, table, monkeypatch, caplog):
    X, y = blobs(60, 4, 3)
    monkeypatch.setattr("stages.probe.newton.MAX_STEPS", 0)
    result = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=GRID)
    assert not any(row.converged for row in result.selection)
    assert sum("missed tolerance" in line for line in result.warnings) == 2
    assert "missed tolerance" in caplog.text


def test_same_seed_same_result(blobs, table):
    X, y = blobs(70, 5, 3)
    first, second = (
        fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=GRID, seed=3) for _ in range(2)
    )
    assert np.array_equal(first.coefficients, second.coefficients)
    assert np.array_equal(first.folds, second.folds)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metric": "accuracy"}, InputError, "unknown"),
        ({"selection": "best"}, ProbeError, "cross_validation or validation"),
        ({"scaling": "minmax"}, ProbeError, "unknown"),
        ({"refit": "test"}, ProbeError, "unknown"),
        ({"lambdas": [1.0, -1.0]}, ProbeError, "greater than 0"),
        ({"folds": 1}, ProbeError, "at least two"),
        ({"tolerance": 2.0}, ProbeError, "between 0 and 1"),
        ({"selection": "validation", "validation_fraction": 1.5}, ProbeError, "share between"),
    ],
)
def test_bad_options_are_refused(blobs, table, change, error, message):
    X, y = blobs(40, 3, 2)
    with pytest.raises(error, match=message):
        fit_probe(table(X, y), None, table(X, y), **{"metric": "top_1", "lambdas": GRID, **change})


def test_tables_that_do_not_fit_are_refused(blobs, table):
    X, y = blobs(40, 3, 2)
    good = table(X, y)
    Y = np.eye(2, dtype=np.int8)[y]
    cases = [
        (table(X[:, :2], y), "different width"),
        (table(X, y, 3), "different class names"),
        (table(X, Y), "multi-label"),
        (table(np.where(X > 1, np.nan, X), y), "NaN"),
        (table(X, np.where(y == 1, 5, 0), 2), "label 5"),
    ]
    for bad, message in cases:
        with pytest.raises(ProbeError, match=message):
            fit_probe(good, None, bad, metric="top_1", lambdas=GRID)
    with pytest.raises(ProbeError, match="one label an image"):
        fit_probe(table(X, Y), None, table(X, Y), metric="top_1", lambdas=GRID)
    with pytest.raises(ProbeError, match="a probe needs both"):
        fit_probe(table(X, y * 0, 2), None, good, metric="top_1", lambdas=GRID)


def test_an_optimum_at_the_edge_of_the_grid_is_said(table):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [40, 20])
    X = rng.normal(size=(60, 4)) + 2.0 * y[:, None]
    result = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=[1e-1, 1e6, 1e7])
    assert result.l2_lambda == 1e-1
    assert any("weakest of the grid: widen the grid" in line for line in result.warnings)


def long_tailed(counts, d, seed, *, scale=1.0):
    """Rows of classes of very different sizes."""
    dice = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = dice.normal(size=(len(counts), d))
    return (scale * (centres[labels] + 0.7 * dice.normal(size=(len(labels), d)))).astype(np.float32), labels


@pytest.mark.parametrize(
    "counts",
    [[30, 20, 10, 2, 1, 1], [8] * 70 + [1], [8] * 50 + [2, 1], [40, 3], [12, 2], [60, *[2] * 30]],
    ids=lambda counts: f"{len(counts)} classes",
)
def test_the_refit_is_that_of_the_path_where_folds_lack_classes(table, counts):
    """A fold without a class has no intercept for it, and the refit keeps the class all the same."""
    X, y = long_tailed(counts, 12, 5)
    tables = table(X, y), None, table(X, y)
    found = fit_probe(*tables, metric="top_1", tolerance=1e-6)
    alone = fit_path(X, y, [found.l2_lambda], n_classes=len(counts), tolerance=1e-6)
    assert np.isfinite(found.intercepts).all()
    assert found.extras["objective"] == pytest.approx(alone.objective[0], rel=1e-5)
    seen = certify(
        X, y, found.coefficients, found.intercepts, found.l2_lambda, n_classes=len(counts), tolerance=1e-6
    )
    assert seen.converged
    assert found.extras["objective"] < seen.null_objective
    again = fit_probe(*tables, metric="top_1", tolerance=1e-6, known=found.selection)
    assert again.l2_lambda == found.l2_lambda
    assert again.extras["objective"] == pytest.approx(found.extras["objective"], rel=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_test_set_is_scored_in_float64(table, scale):
    """At the strongest lambda classes differ in digits that float32 does not have."""
    X, y = long_tailed([40] * 10, 64, 1, scale=scale)
    found = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=[1e5 * scale**2])
    assert found.value > 0.95
    assert evaluate("top_1", y, found.test_logits) == found.value


def test_a_refit_on_one_class_is_refused(table):
    X, y = long_tailed([10, 10], 3, 0)
    with pytest.raises(ProbeError, match="a probe needs both"):
        fit_probe(
            table(X[:10], y[:10], 2), table(X[10:], y[10:], 2), table(X, y, 2), metric="top_1", refit="train"
        )


def test_lambdas_that_missed_are_fitted_again(blobs, table):
    X, y = blobs(90, 6, 3)
    known = [
        SelectionRow(GRID[0], 0.99, converged=False),
        SelectionRow(GRID[1], float("nan"), converged=True),
    ]
    found = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=GRID, known=known)
    assert [row.reused for row in found.selection] == [False, False, False]


@pytest.mark.parametrize("seed", [1, 2, 3, 5, 6, 8])
def test_the_refit_reaches_the_optimum_from_wherever_the_folds_ended(table, seed):
    """At a weak lambda the mean of the folds' solutions may lie far from any optimum."""
    rng = np.random.default_rng(seed)
    y = np.arange(40) % 6
    X = (rng.normal(size=(40, 4)) + rng.normal(size=(6, 4))[y]).astype(np.float32)
    result = fit_probe(table(X, y), None, table(X, y), metric="top_1", lambdas=[1e-5])
    assert not [line for line in result.warnings if line.startswith("refit")]
    seen = certify(X, y, result.coefficients, result.intercepts, 1e-5)
    assert seen.converged
    assert result.extras["objective"] == pytest.approx(seen.objective, rel=1e-9)
