"""The bench measures what it says: both sides solve the same problem, and suboptimality is the protocol's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import bench_growth, bench_train
from pipeline.bench import bench, photographs
from pipeline.bench_cache import HASHING, bench_cache
from pipeline.bench_executors import bench_executors
from pipeline.bench_probe import RECIPE, SLOW_SIDE, bench_problem, plain_path
from pipeline.errors import StudyError
from stages.probe import default_lambdas, fit_path
from stages.records import FeatureTable, Split


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    dice = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (dice.normal(size=(60, 6)) + labels[:, None]).astype(np.float32)
    return FeatureTable(features, labels, tuple(map(str, range(60))), ("a", "b", "c"))


def test_every_side_is_measured_against_the_certified_optimum(table: FeatureTable) -> None:
    told: list[str] = []
    rows = {row["side"]: row for row in bench_problem("blobs", table, table, 1, tell=told.append)}
    assert len(rows) == 7
    assert len(told) == 8  # the reference first, then each side as soon as it is measured
    ours, theirs = rows["penultimate path, certified to 1e-3"], rows[SLOW_SIDE]
    assert ours["worst_suboptimality"] <= 1e-3
    assert theirs["times_as_fast"] == 1.0
    assert ours["floor_seconds"] >= 0
    assert rows["scikit-learn path, tol 1e-4"]["worst_suboptimality"] > ours["worst_suboptimality"]
    selected = rows["penultimate 5-fold selection + refit, certified"]
    assert selected["worst_suboptimality"] <= 1e-3
    for side in (selected, rows["LogisticRegressionCV, 5 folds"], rows[RECIPE]):
        assert np.abs(np.log(default_lambdas() / side["l2_lambda"])).min() < 0.01
        assert side["worst_suboptimality"] == side["median_suboptimality"]
        assert 0.4 < side["test_score"] <= 1


def test_growth_is_measured_over_a_factor_of_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_growth, "BASE", {"n": 40, "d": 4, "K": 2})
    monkeypatch.setattr(bench_growth, "FIRST", {"n": 20, "d": 2})
    rows = bench_growth.bench_growth(1, lambdas=4)
    assert [row["n"] for row in rows] == [20, 40, 80, 160, 320, *[40] * 5]
    assert [row["d"] for row in rows] == [*[4] * 5, 2, 4, 8, 16, 32]
    assert all(row["converged"] == 4 for row in rows)
    assert all(row["peak_mb"] > 0 for row in rows)
    assert bench_growth.exponent([10, 20, 40], [1.0, 4.0, 16.0]) == pytest.approx(2)


def test_a_large_path_is_measured_on_mapped_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_growth, "LARGE", {"n": 300, "d": 8, "K": 3})
    monkeypatch.setattr(bench_growth, "_BLOCK_ROWS", 128)
    (row,) = bench("probe", large=True)
    assert (row["n"], row["converged"]) == (300, 45)
    assert row["features_mb"] == round(300 * 8 * 4 / 1e6, 1)
    assert row["peak_mb"] > 0


def test_growth_is_of_the_probe_alone() -> None:
    with pytest.raises(StudyError, match="penultimate bench probe"):
        bench("extract", growth=True)


def test_a_thorough_bench_ends_when_the_other_side_is_as_close(table: FeatureTable) -> None:
    rows = [
        row for row in bench_problem("blobs", table, table, 1, thorough=True) if "until as" in row["side"]
    ]
    assert 1 <= len(rows) <= 3
    assert [row["worst_suboptimality"] > 1e-3 for row in rows[:-1]] == [True] * (len(rows) - 1)


def test_the_other_side_solves_the_same_problem(table: FeatureTable) -> None:
    grid = default_lambdas()[::-1][5:15]
    coefficients, intercepts = plain_path(table.features, table.labels, grid, 1e-10, 10_000)
    ours = fit_path(table.features, table.labels, grid, tolerance=1e-8)
    np.testing.assert_allclose(np.array(coefficients), ours.coefficients, atol=1e-3)
    differences = np.array(intercepts) - ours.intercepts
    np.testing.assert_allclose(differences - differences.mean(axis=1, keepdims=True), 0, atol=1e-2)


def test_the_cache_is_measured_in_passes_of_sha_256() -> None:
    rows = {row["side"]: row for row in bench_cache(600)}
    assert rows[HASHING]["passes"] == 1.0
    assert {"staging, all batches", "publishing", "cache verify"} <= set(rows)
    assert len({row["bytes"] for row in rows.values()}) == 1
    assert all(row["seconds"] > 0 for row in rows.values())


@pytest.mark.slow
def test_training_is_measured_beside_the_plain_loop_and_the_bare_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three sides on a smaller problem; how fast they are is for people to read."""
    chosen = bench_train._task

    def smaller(split: Split) -> bench_train.Task:
        task = chosen(split)
        return replace(task, recipe=replace(task.recipe, image_size=32, batch_size=4, steps=3))

    monkeypatch.delenv("PENULTIMATE_TEST_DATA", raising=False)
    monkeypatch.setattr(bench_train, "_task", smaller)
    rows = {row["side"]: row for row in bench_train.bench_train(photographs(8, tmp_path), rounds=1)}
    assert list(rows) == [bench_train.PLAIN, bench_train.OURS, bench_train.RESIDENT]
    plain, ours, bare = rows.values()
    assert plain["times_as_fast"] == bare["of_the_bare_step"] == 1.0
    assert ours["times_as_fast"] == pytest.approx(
        ours["images_per_second"] / plain["images_per_second"], abs=0.02
    )
    assert all(row["images_per_second"] > 0 and row["steps"] == 3 for row in rows.values())


@pytest.mark.slow
def test_every_executor_is_measured_on_jobs_that_come_back() -> None:
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    rows = bench_executors(20)
    assert [row["jobs"] for row in rows] == [20, 20, 20]
    assert all(row["all_s"] >= row["first_s"] >= 0 for row in rows)


def test_a_bench_that_is_interrupted_does_not_say_that_anything_is_kept(
    monkeypatch: pytest.MonkeyPatch, penultimate
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.bench.bench", interrupted)
    done = penultimate("bench", "cache")
    assert done.status == 4
    assert "interrupted: a bench keeps nothing but what it has told so far" in done.err
    assert "everything finished is kept" not in done.err
