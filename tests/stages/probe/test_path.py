import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from stages.errors import ProbeError
from stages.probe import certify, default_lambdas, fit_path
from stages.probe.basis import Basis

GRID = [1e3, 1e1, 1e-1, 1e-3]


def scikit_learn(X, y, l2_lambda):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=1 / l2_lambda, tol=1e-12, max_iter=100_000)
        return model.fit(X.astype(np.float64), y)


@pytest.mark.parametrize(("n", "d", "K"), [(60, 5, 3), (30, 40, 4), (200, 3, 2), (20, 50, 2)])
@pytest.mark.parametrize("l2_lambda", [100.0, 1.0, 1e-2])
def test_agrees_with_scikit_learn(blobs, n, d, K, l2_lambda):
    X, y = blobs(n, d, K)
    path = fit_path(X, y, [l2_lambda], tolerance=1e-10)
    model = scikit_learn(X, y, l2_lambda)
    assert path.coefficients[0] == pytest.approx(model.coef_, abs=1e-4)
    Z = X @ path.coefficients[0].T + path.intercepts[0]
    P = softmax(Z, axis=1) if K > 2 else np.hstack([1 - expit(Z), expit(Z)])
    assert pytest.approx(model.predict_proba(X), abs=1e-4) == P


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize(("n", "d"), [(50, 4), (12, 20)])
def test_optimum_lies_within_the_bound(blobs, independent, multi, n, d):
    X, y = blobs(n, d, 3)
    Y = independent.one_hot(y, 3)
    if multi:
        Y[np.random.default_rng(1).random(Y.shape) < 0.2] = -1
    path = fit_path(X, Y if multi else y, GRID, tolerance=1e-2)
    for i, l2_lambda in enumerate(GRID):
        _, _, best = independent.optimum(X.astype(np.float64), Y, l2_lambda, multi)
        ours = independent.objective(
            X.astype(float), Y, path.coefficients[i], path.intercepts[i], l2_lambda, multi
        )
        assert ours == pytest.approx(path.objective[i], rel=1e-9)
        noise = 1e-12 * best
        assert best - noise <= path.objective[i] <= best + path.bound[i] + noise
        assert path.objective[i] - best == pytest.approx(
            path.estimate[i], rel=0.25, abs=max(noise, 1e-9 * best)
        )
        assert path.estimate[i] <= path.bound[i] * (1 + 1e-6) + noise
        assert path.converged[i]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(4, 40),
    st.integers(1, 30),
    st.integers(2, 5),
    st.floats(-4, 4),
    st.sampled_from([1e-3, 1e-8]),
    st.integers(0, 1000),
)
def test_every_point_is_certified(n, d, K, log_lambda, tolerance, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    y = rng.integers(0, K, n)
    y[:2] = 0, 1
    path = fit_path(X, y, [10.0**log_lambda], tolerance=tolerance, n_classes=K)
    seen = certify(
        X, y, path.coefficients[0], path.intercepts[0], path.lambdas[0], tolerance=tolerance, n_classes=K
    )
    assert path.converged[0]
    assert seen.objective == pytest.approx(path.objective[0], rel=1e-9)
    assert seen.bound <= 1.5 * path.bound[0] + 1e-12 * seen.objective


def test_order_of_the_grid_is_kept(blobs):
    X, y = blobs()
    shuffled, sorted_ = fit_path(X, y, [0.1, 10.0, 1.0]), fit_path(X, y, [10.0, 1.0, 0.1])
    assert shuffled.lambdas.tolist() == [0.1, 10.0, 1.0]
    assert np.array_equal(shuffled.coefficients, sorted_.coefficients[[2, 0, 1]])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_predictions_do_not_depend_on_rotation_or_shift(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(25, 4)), np.arange(25) % 3
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    plain, moved = fit_path(X, y, [0.5], tolerance=1e-9), fit_path(X @ Q + 7, y, [0.5], tolerance=1e-9)
    assert moved.objective == pytest.approx(plain.objective, rel=1e-7)
    assert moved.coefficients[0] @ Q.T == pytest.approx(plain.coefficients[0], abs=1e-3)


def test_two_column_softmax_is_one_sigmoid_at_half_lambda(blobs):
    X, y = blobs(40, 3, 2)
    two = fit_path(X, y, [3.0], tolerance=1e-10)
    three = fit_path(X, y, [6.0], tolerance=1e-10, n_classes=3)
    assert two.coefficients.shape == (1, 1, 3)
    assert three.coefficients.shape == (1, 3, 3)
    difference = three.coefficients[0, 1] - three.coefficients[0, 0]
    assert difference == pytest.approx(two.coefficients[0, 0], abs=1e-4)
    assert not three.coefficients[0, 2].any()
    assert three.intercepts[0, 2] == -np.inf
    assert any("no rows" in event for event in three.events)


def test_a_multi_label_problem_is_one_problem_a_label(blobs):
    X, y = blobs(40, 3, 3)
    Y = (y[:, None] == np.arange(3)).astype(np.int8)
    Y[:4, 1] = -1
    path = fit_path(X, Y, [1.0], tolerance=1e-9)
    kept = Y[:, 1] >= 0
    alone = fit_path(X[kept], Y[kept, 1].astype(np.int64), [1.0], tolerance=1e-9)
    assert path.coefficients[0, 1] == pytest.approx(alone.coefficients[0, 0], abs=1e-4)


def test_constant_labels_go_to_their_limit(blobs):
    X, _ = blobs(6, 2, 2)
    Y = np.array([[1, 1, 0]] * 3 + [[0, 1, 0]] * 3, dtype=np.int8)
    path = fit_path(X, Y, [1.0])
    assert path.intercepts[0, 1:].tolist() == [np.inf, -np.inf]
    assert np.isfinite(path.objective).all()
    assert path.converged.all()


def test_constant_columns_and_constant_features_are_fine(blobs):
    X, y = blobs()
    padded = np.hstack([X, np.full((len(X), 2), 3.0, np.float32)])
    path = fit_path(padded, y, [1.0])
    assert not path.coefficients[0, :, 5:].round(9).any()
    nothing = fit_path(np.ones((6, 3), np.float32), np.array([0, 0, 1, 1, 2, 2]), [1.0, 1e-6])
    assert nothing.converged.all()
    assert nothing.objective == pytest.approx(6 * np.log(3))


def test_strongest_lambda_does_not_stay_at_zero(blobs):
    X, y = blobs(90, 5, 3, spread=3)
    path = fit_path(X, y, [1e5])
    assert path.converged[0]
    assert np.mean((X @ path.coefficients[0].T + path.intercepts[0]).argmax(1) == y) > 0.8


@pytest.mark.parametrize("tolerance", [1e-3, 1e-8])
def test_separable_data_at_the_weakest_lambda(blobs, tolerance):
    X, y = blobs(80, 10, 4, spread=30)
    path = fit_path(X, y, default_lambdas(), tolerance=tolerance)
    assert path.converged.all()


def test_ill_conditioned_features_reach_tight_tolerances():
    rng = np.random.default_rng(0)
    U, V = np.linalg.qr(rng.normal(size=(120, 30)))[0], np.linalg.qr(rng.normal(size=(30, 30)))[0]
    X = (U * np.logspace(4, -4, 30)) @ V.T  # condition number 1e8
    y = (X @ rng.normal(size=(30, 4))).argmax(axis=1)
    y[:4] = range(4)
    for tolerance in (1e-3, 1e-8):
        path = fit_path(X, y, default_lambdas(), tolerance=tolerance)
        assert path.converged.all()
        for i in (0, 22, 44):
            seen = certify(
                X, y, path.coefficients[i], path.intercepts[i], path.lambdas[i], tolerance=2 * tolerance
            )
            assert seen.converged


def ill_conditioned(n, d, seed=0):
    """Features of condition number 1e8, in directions that are nobody's axes."""
    rng = np.random.default_rng(seed)
    m = min(n, d)
    U, V = np.linalg.qr(rng.normal(size=(n, m)))[0], np.linalg.qr(rng.normal(size=(d, m)))[0]
    return (U * np.logspace(4, -4, m)) @ V.T, rng.integers(0, 3, n)


@pytest.mark.parametrize(("n", "d"), [(150, 100), (60, 90)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-7])
def test_labels_that_ill_conditioned_features_hardly_explain(n, d, tolerance):
    """Every direction matters, the least one as well."""
    X, y = ill_conditioned(n, d)
    grid = default_lambdas()[::4]
    path = fit_path(X, y, grid, tolerance=tolerance)
    assert path.converged.all()
    for i, l2_lambda in enumerate(grid):
        seen = certify(X, y, path.coefficients[i], path.intercepts[i], l2_lambda, tolerance=tolerance)
        assert seen.objective == pytest.approx(path.objective[i], rel=1e-11)


def gap_in_long_double(X, y, W, b, l2_lambda):
    """Return ||g_W||^2 / (2 lambda) at the best intercepts, with every sum in long double."""
    exact, W = X.astype(np.longdouble) - X.astype(np.longdouble).mean(axis=0), W.astype(np.longdouble)
    Y, Z = np.eye(len(W), dtype=np.longdouble)[y], exact @ W.T
    b = b + X.mean(axis=0) @ W.T
    for _ in range(50):
        P = np.exp(Z + b - (Z + b).max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        slope, hessian = (P - Y).sum(axis=0), np.diag(P.sum(axis=0)) - P.T @ P
        b = b - np.linalg.lstsq(hessian.astype(float), slope.astype(float), rcond=1e-12)[0]
    gradient = (P - Y).T @ exact + l2_lambda * W
    return float((gradient**2).sum() / (2 * l2_lambda))


def test_the_bound_holds_where_many_rows_are_the_same():
    """The same rows round alike, and the weakest direction of such features tells it from the rest."""
    X, y = ill_conditioned(120, 30)
    X, y = np.repeat(X, 20, axis=0), np.random.default_rng(1).integers(0, 3, 2400)
    path = fit_path(X, y, default_lambdas()[:20:3], tolerance=1e-8)
    for W, b, l2_lambda, bound in zip(
        path.coefficients, path.intercepts, path.lambdas, path.bound, strict=True
    ):
        assert gap_in_long_double(X, y, W, b, l2_lambda) <= 1.01 * bound


@pytest.mark.parametrize(("n", "d"), [(150, 100), (60, 90)])
def test_a_walk_that_strains_goes_on_in_other_coordinates(monkeypatch, n, d):
    X, y = ill_conditioned(n, d)
    alone = fit_path(X, y, GRID, tolerance=1e-7)
    monkeypatch.setattr("stages.probe.basis.SMALL", 8)
    monkeypatch.setattr("stages.probe.walk.PATIENCE", 10)
    turned = []
    turn = Basis.turned
    monkeypatch.setattr(Basis, "turned", lambda basis: turned.append(basis) or turn(basis))
    path = fit_path(X, y, GRID, tolerance=1e-7)
    assert len(turned) == 1
    assert path.converged.all()
    assert path.objective == pytest.approx(alone.objective, rel=1e-6)
    assert (path.estimate <= path.bound + 1e-12 * path.objective).all()
    seen = certify(X, y, path.coefficients[3], path.intercepts[3], GRID[3], tolerance=1e-6)
    assert seen.objective == pytest.approx(path.objective[3], rel=1e-11)


def test_many_more_rows_than_columns(blobs, independent):
    X, y = blobs(1200, 4, 3)
    path = fit_path(X, y, [1.0, 1e-4], tolerance=1e-8)
    best = independent.optimum(X.astype(np.float64), independent.one_hot(y, 3), 1e-4, False)[2]
    assert path.objective[1] == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(300, 8), (20, 60)])
def test_reading_block_by_block_gives_the_same(blobs, tmp_path, dtype, shape):
    X, y = blobs(*shape, 3)
    path = tmp_path / "features.npy"
    np.save(path, X.astype(dtype))
    mapped = np.load(path, mmap_mode="r")
    streamed = fit_path(mapped, y, GRID, tolerance=1e-9, memory=0)
    kept = fit_path(X.astype(dtype), y, GRID, tolerance=1e-9)
    assert streamed.converged.all()
    assert streamed.coefficients == pytest.approx(kept.coefficients, abs=1e-4)


def test_missed_tolerance_is_an_event(blobs, caplog, monkeypatch):
    X, y = blobs(60, 5, 3)
    monkeypatch.setattr("stages.probe.newton.MAX_STEPS", 0)
    path = fit_path(X, y, [1.0])
    assert not path.converged[0]
    assert "missed tolerance" in path.events[0]
    assert "missed tolerance" in caplog.text


def test_progress_may_cancel(blobs):
    X, y = blobs()

    def cancel(done, total, note):
        assert (done, total) == (1, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_path(X, y, GRID, progress=cancel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((6, 2), np.nan, np.float32)}, "NaN or infinity, first in row 0"),
        ({"features": np.array([[0.0, 1]] * 5 + [[np.inf, 0]], np.float32)}, "first in row 5"),
        ({"features": np.zeros((6, 2), np.int64)}, "float32, float16 or float64"),
        ({"features": np.zeros(6, np.float32)}, "shape"),
        ({"features": np.zeros((0, 2), np.float32), "labels": []}, "at least one row"),
        ({"labels": [0, 1, 0]}, "6 rows"),
        ({"labels": [0] * 6}, "one class"),
        ({"labels": [0, 1, 2, 0, 1, 3], "n_classes": 3}, "label 3 lies outside"),
        ({"labels": [0, 1, -1, 0, 1, 1]}, "label -1 lies outside"),
        ({"labels": [0.0, 1, 0, 1, 0, 1]}, "integers"),
        ({"labels": np.full((6, 2), 2)}, "1, 0 or -1"),
        ({"labels": np.ones((6, 2), np.int8)}, "rows with it"),
        ({"labels": np.zeros((6, 2), np.int8), "n_classes": 3}, "2 columns"),
        ({"lambdas": []}, "at least one"),
        ({"lambdas": [1.0, 0.0]}, "greater than 0"),
        ({"lambdas": [-1.0]}, "greater than 0"),
        ({"lambdas": [np.inf]}, "finite"),
        ({"lambdas": [1.0, 1.0]}, "twice"),
        ({"tolerance": 0.0}, "between 0 and 1"),
        ({"threads": 0}, "at least one"),
    ],
)
def test_bad_input_is_refused(change, message):
    rng = np.random.default_rng(0)
    asked = {
        "features": rng.normal(size=(6, 2)).astype(np.float32),
        "labels": [0, 1, 0, 1, 0, 1],
        "lambdas": [1.0],
        **change,
    }
    features, labels, lambdas = asked.pop("features"), np.array(asked.pop("labels")), asked.pop("lambdas")
    if not labels.size:
        labels = labels.astype(np.int64)
    with pytest.raises(ProbeError, match=message):
        fit_path(features, labels, lambdas, **asked)


@pytest.mark.parametrize("strongest", [1e-2, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_grid_may_begin_anywhere(strongest, seed):
    """Many classes of very different sizes, and no strong lambda to start from."""
    dice = np.random.default_rng(seed)
    counts = dice.choice([2, 3, 5, 20], size=(10, 30, 70)[seed % 3])
    labels = np.repeat(np.arange(len(counts)), counts)
    d = (10, 40, 200)[seed // 2 % 3]
    features = (dice.normal(size=(len(counts), d))[labels] + dice.normal(size=(len(labels), d))).astype(
        np.float32
    )
    path = fit_path(features, labels, np.geomspace(strongest / 1e3, strongest, 7))
    assert path.converged.all()
    for W, b, l2_lambda, J in zip(
        path.coefficients, path.intercepts, path.lambdas, path.objective, strict=True
    ):
        seen = certify(features, labels, W, b, l2_lambda)
        assert seen.converged
        assert seen.null_objective > J
        assert seen.objective == pytest.approx(J, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "d", "classes", "scale", "grid"),
    [
        (500, 5, 3, 1e4, default_lambdas()),
        (500, 5, 3, 10.0, np.logspace(-6, 5, 400)),
        (4000, 8, 4, 1e3, default_lambdas()),
        (300, 20, 5, 1e-4, default_lambdas()),
    ],
)
def test_what_is_certified_is_so_on_the_features_themselves(n, d, classes, scale, grid):
    """Logits that are carried from point to point gather rounding; long grids and large features show it."""
    dice = np.random.default_rng(2)
    labels = np.arange(n) % classes
    features = (scale * (dice.normal(size=(n, d)) + 0.3 * labels[:, None])).astype(np.float32)
    path = fit_path(features, labels, grid)
    assert path.converged.all()
    for W, b, l2_lambda in zip(path.coefficients, path.intercepts, path.lambdas, strict=True):
        assert certify(features, labels, W, b, l2_lambda, tolerance=1.1e-3).converged


def test_intercepts_are_found_from_anywhere():
    dice = np.random.default_rng(0)
    for counts in ([20, 20, 20], [100, 1, 1], [200, *[2] * 20], [8] * 69 + [1]):
        labels = np.repeat(np.arange(len(counts)), counts)
        features = dice.normal(size=(len(labels), 6)).astype(np.float32) + labels[:, None] / len(counts)
        path = fit_path(features, labels, [1.0], tolerance=1e-6)
        K = len(counts)
        for start in (path.intercepts[0], np.zeros(K), np.linspace(-5, 5, K), dice.normal(size=K) * 100):
            seen = certify(features, labels, path.coefficients[0], start, 1.0)
            assert seen.objective == pytest.approx(path.objective[0], rel=1e-6)
            assert seen.converged


@pytest.mark.parametrize("l2_lambda", [1e8, 1e13])
def test_a_lambda_that_leaves_next_to_nothing_still_finds_the_direction(l2_lambda):
    dice = np.random.default_rng(0)
    labels = np.arange(80) % 4
    features = (dice.normal(size=(4, 8))[labels] + 0.1 * dice.normal(size=(80, 8))).astype(np.float32)
    path = fit_path(features, labels, [l2_lambda])
    scores = features @ path.coefficients[0].T + path.intercepts[0]
    assert (scores.argmax(axis=1) == labels).mean() > 0.95


def test_wrong_figures_for_a_certificate_are_refused():
    features, labels = np.eye(4, 3, dtype=np.float32), [0, 1, 2, 0]
    W, b = np.zeros((3, 3)), np.zeros(3)
    for l2_lambda, tolerance, bias, said in (
        (-1.0, 1e-3, b, "greater than 0"),
        (1.0, 5.0, b, "between 0 and 1"),
        (1.0, 1e-3, b[:2], r"intercepts have shape \(2,\)"),
        (1e-300, 1e-3, b, "lies outside"),
    ):
        with pytest.raises(ProbeError, match=said):
            certify(features, labels, W, bias, l2_lambda, tolerance=tolerance)
    with pytest.raises(ProbeError, match="scale them down"):
        fit_path(features * np.float32(1e30), labels, [1.0])


@pytest.mark.parametrize("l2_lambda", [1e-6, 4.66e-6, 1e-4])
@pytest.mark.parametrize("seed", [0, 8])
def test_figures_belong_to_the_solution_that_is_returned(seed, l2_lambda):
    """Few rows in several classes at a weak lambda: the way is long, and may end early."""
    rng = np.random.default_rng(seed)
    y = np.arange(20) % 6
    X = rng.integers(-3, 4, size=(20, 6)).astype(np.float32)
    path = fit_path(X, y, [l2_lambda])
    seen = certify(X, y, path.coefficients[0], path.intercepts[0], l2_lambda)
    assert path.objective[0] == pytest.approx(seen.objective, rel=1e-9)
    assert path.bound[0] >= seen.bound * (1 - 1e-6) or path.converged[0]


def test_lambdas_that_are_the_same_but_for_rounding_are_one(blobs):
    X, y = blobs(30, 4, 3)
    with pytest.raises(ProbeError, match="given twice"):
        fit_path(X, y, [100.0, np.nextafter(100.0, 200.0), 1.0])


def test_features_of_a_large_scale_at_a_weak_lambda_alone():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = (1e6 * (rng.normal(size=(60, 5)) + y[:, None])).astype(np.float32)
    path = fit_path(X, y, [1e-6])
    assert np.isfinite(path.objective[0])
