"""The bench of stage one measures the same features on both sides, and a group by its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import bench_extract
from pipeline.bench import _plain_features, photographs
from pipeline.bench_extract import bench_extract as measure
from pipeline.bench_extract import best_of
from stages.backbones import resolve
from stages.records import Split


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    monkeypatch.delenv("PENULTIMATE_TEST_DATA", raising=False)
    return photographs(8, tmp_path)


def test_both_sides_give_the_same_features_and_groups_are_told_by_their_parts(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_extract, "ROUNDS", 1)
    monkeypatch.setattr(bench_extract, "LITE", ("test_resnet", "test_efficientnet"))
    monkeypatch.setattr(bench_extract, "SMALL", ("test_resnet", "test_convnext"))
    rows = measure(split, 8, _plain_features)
    plain, ours = rows[:2]
    assert plain["times_as_fast"] == 1.0
    assert plain["largest_relative_deviation"] == 0.0 < ours["largest_relative_deviation"] < 1e-4
    assert [row["what"] for row in rows[2:]] == ["three lite nets"] * 2 + ["eight small nets"] * 2
    for parts, one_pass in (rows[2:4], rows[4:6]):
        assert parts["times_the_parts"] == 1.0
        assert one_pass["times_the_parts"] == pytest.approx(
            one_pass["seconds"] / parts["seconds"], abs=0.02 + 0.002 / parts["seconds"]
        )
        assert 0 < parts["decode_seconds"] <= parts["seconds"]


def test_the_best_of_the_rounds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    seconds, results = best_of({"a": lambda: seen.append("a"), "b": lambda: seen.append("b") or 3})
    assert seen == ["a", "b"] * bench_extract.ROUNDS
    assert results == {"a": None, "b": 3}
    assert set(seconds) == {"a", "b"}


def test_the_nets_of_the_bench_are_known_and_eight_are_small() -> None:
    assert len(bench_extract.SMALL) == 8
    for name in (*bench_extract.LITE, *bench_extract.SMALL):
        assert resolve(name, weights="random").dimension > 0
