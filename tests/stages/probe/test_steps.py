"""What steers the solver: coordinates, preconditioner, extrapolation. None of it may change an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.probe import default_lambdas, fit_path
from stages.probe.basis import make_basis
from stages.probe.losses import SoftmaxLoss
from stages.probe.newton import Solver
from stages.probe.points import Point
from stages.probe.preconditioner import make_preconditioner
from stages.probe.span import step_in_span
from stages.probe.trapezoid import column_panels, lower_trapezoid, row_panels

SHAPES = [(30, 80), (90, 70), (150, 70), (40, 6), (9, 100)]


def held(basis):
    """X in the coordinates of the features, whatever the basis holds."""
    return basis.exact if basis.turn is None else basis.exact @ basis.turn


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_products_are_those_with_the_centred_features(n, d, turned):
    rng = np.random.default_rng(0)
    features = (5 + rng.normal(size=(n, d))).astype(np.float32)
    X = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    basis = make_basis(features, turned=turned)
    assert held(basis) == pytest.approx(X, abs=1e-12)
    W, R = rng.normal(size=(3, basis.size)), rng.normal(size=(n, 3))
    full = basis.coefficients(W)
    assert basis.forward(W) == pytest.approx(X @ full.T, abs=1e-10)
    assert basis.coefficients(basis.backward(R)) == pytest.approx(R.T @ X, abs=1e-10)
    assert basis.forward(W.astype(np.float32)) == pytest.approx(X @ full.T, abs=2e-4)
    assert basis.backward(R.astype(np.float32)) == pytest.approx(basis.backward(R), abs=2e-4)
    chosen = np.flatnonzero(np.arange(n) % 3)
    part = basis.subset(chosen)
    assert part.forward(W) == pytest.approx(X[chosen] @ full.T, abs=1e-10)
    assert part.coefficients(part.backward(R[chosen])) == pytest.approx(R[chosen].T @ X[chosen], abs=1e-10)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_features_read_block_by_block_give_the_same_products(n, d):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(n, d)).astype(np.float16)
    memory, stream = make_basis(features), make_basis(features, memory=0)
    assert stream.exact is None
    assert stream.fast is None
    W, R = rng.normal(size=(2, d)), rng.normal(size=(n, 2))
    inner = W if memory.turn is None else W @ memory.turn.T
    assert stream.forward(W) == pytest.approx(memory.forward(inner), abs=1e-10)
    assert stream.backward(R) == pytest.approx(memory.coefficients(memory.backward(R)), abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 30), st.integers(0, 1000))
def test_a_trapezoid_is_the_features_turned(n, d, rank, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) if rank > 20 else rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    lower, turn = lower_trapezoid(X)
    assert lower @ turn == pytest.approx(X, abs=1e-10)
    assert turn @ turn.T == pytest.approx(np.eye(min(n, d)), abs=1e-12)
    assert not np.triu(lower, 1).any()
    reach = np.minimum(np.arange(1, n + 1), min(n, d))
    by_rows, by_columns = np.zeros((n, len(turn)), bool), np.zeros((n, len(turn)), bool)
    for rows, stop in row_panels(reach):
        by_rows[rows, :stop] = True
    for first, columns in column_panels(reach, len(turn)):
        by_columns[first:, columns] = True
    assert by_rows[lower != 0].all()
    assert by_columns[lower != 0].all()


@pytest.mark.parametrize(("n", "d"), [(40, 6), (90, 70), (200, 70)])
def test_leading_directions_are_those_of_the_features(n, d):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(n, d)) * 2.0 ** -np.arange(d)).astype(np.float32)
    basis = make_basis(features)
    X = held(basis)
    squares = np.linalg.eigvalsh(X.T @ X)[::-1]
    assert basis.squares[:5] == pytest.approx(squares[:5], rel=1e-3)
    assert basis.total == pytest.approx((X**2).sum())


@pytest.mark.parametrize(("n", "d"), [(40, 6), (20, 90), (30, 65)])
def test_preconditioner_inverts_a_hessian_of_equal_curvatures(n, d):
    rng = np.random.default_rng(0)
    basis = make_basis(rng.normal(size=(n, d)).astype(np.float32))
    half = rng.normal(size=(3, 3))
    C = half @ half.T
    system = np.kron(C, basis.exact.T @ basis.exact) + 0.3 * np.eye(3 * basis.size)
    inverse = make_preconditioner(basis, n * C[None], 0.3, np.float64)
    r = rng.normal(size=(1, 3, basis.size))
    # Fewer rows than directions kept: the preconditioner knows the whole spectrum.
    assert system @ inverse.apply(r).ravel() == pytest.approx(r.ravel(), abs=2e-3)


def test_a_step_in_a_span_finds_its_minimum():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 6)), np.arange(80) % 3
    loss, l2_lambda = SoftmaxLoss(y, np.ones((80, 1)), 3), 2.0

    def point(W, b):
        return Point(W[None], b[None], (X @ W.T)[:, None], np.zeros(1))

    def objective(p):
        value, _ = loss.residuals(p.logits, p.intercepts, np.empty_like(p.logits))
        return value[0] + l2_lambda / 2 * (p.weights**2).sum()

    parts = [(0.2 * rng.normal(size=(3, 6)), 0.2 * rng.normal(size=3)) for _ in range(2)]
    increments = [point(W, b) for W, b in parts]
    changes = [p.logits + p.intercepts for p in increments]
    factors, values = np.zeros(2), []
    for _ in range(6):
        W = sum(f * w for f, (w, _) in zip(factors, parts, strict=True))
        b = sum(f * c for f, (_, c) in zip(factors, parts, strict=True))
        base = point(W, b)
        values.append(objective(base))
        move = step_in_span(loss, base, increments, changes, l2_lambda)
        factors = factors + move[0]
    assert abs(move).max() < 1e-9
    assert values[-1] < values[0]
    assert values == sorted(values, reverse=True)


def test_increments_that_repeat_each_other_are_no_trouble():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), np.arange(40) % 2
    loss = SoftmaxLoss(y, np.ones((40, 1)), 2)
    W = rng.normal(size=(2, 4))
    one, none = Point(W[None], np.zeros((1, 2)), (X @ W.T)[:, None], np.zeros(1)), np.zeros((40, 1, 2))
    still = Point(np.zeros((1, 2, 4)), np.zeros((1, 2)), none, np.zeros(1))
    base = Point(np.zeros((1, 2, 4)), np.zeros((1, 2)), none.copy(), np.zeros(1))
    move = step_in_span(loss, base, [one, one, still], [one.logits, one.logits, none], 1.0)
    assert np.isfinite(move).all()
    assert abs(move).max() <= 1


def test_a_doubtful_start_is_never_called_good_in_float32(blobs):
    X, y = blobs(60, 80, 4)
    basis, loss = make_basis(X), SoftmaxLoss(y, np.ones((60, 1)), 4)
    solver = Solver(basis, loss, loss.null()[0])
    zeros = Point(np.zeros((1, 4, 80)), np.zeros((1, 4)), np.zeros((60, 1, 4)), np.zeros(1))
    solved = solver.solve(zeros, 1.0, 1e-3)
    assert solved.converged.all()
    again = solver.evaluate(solved.point, 1.0, 1e-3, coarse=True)
    # The very gradient of float64, not one that float32 could have formed.
    assert np.array_equal(again.gradient, solver.evaluate(solved.point, 1.0, 1e-3).gradient)
    wanting = solver.evaluate(solved.point, 1.0, 1e-6, coarse=True)
    assert not wanting.converged.any()
    assert wanting.bound == pytest.approx(solver.evaluate(solved.point, 1.0, 1e-6).bound, rel=1e-2)


@pytest.mark.parametrize(("n", "d"), [(60, 90), (40, 90), (90, 70), (200, 70)])
def test_a_path_costs_few_passes(blobs, n, d):
    X, y = blobs(n, d, 4)
    path = fit_path(X, y, default_lambdas())
    assert path.converged.all()
    assert path.evaluations.sum() < 4 * len(default_lambdas())
