"""Schedules of jobs on workers: bounds that hold for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.simulate import makespan
from pipeline.tasks import Phase, Task

SECONDS = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@given(SECONDS, st.integers(1, 50), st.floats(0, 100))
def test_a_schedule_lies_between_its_bounds(seconds: list[float], workers: int, start: float) -> None:
    used = min(workers, len(seconds))
    found = makespan(seconds, workers, start) - start
    lower = max(*seconds, sum(seconds) / used)
    assert found >= lower - 1e-6
    assert found <= sum(seconds) + 1e-6
    # Graham's bound holds against the best schedule, which is no shorter than this lower bound allows.
    assert found <= sum(seconds) / used + (1 - 1 / used) * max(seconds) + 1e-6


@given(SECONDS, st.integers(1, 50), st.floats(0, 100))
def test_another_worker_never_makes_it_longer(seconds: list[float], workers: int, start: float) -> None:
    assert makespan(seconds, workers + 1, start) <= makespan(seconds, workers, start) + 1e-6


@given(SECONDS, st.integers(1, 50), st.randoms())
def test_the_order_of_the_jobs_is_nothing_to_a_schedule(
    seconds: list[float], workers: int, dice: Any
) -> None:
    shuffled = list(seconds)
    dice.shuffle(shuffled)
    assert makespan(shuffled, workers) == near(makespan(seconds, workers))


def test_one_worker_does_one_job_after_the_other_and_none_is_started_for_nothing() -> None:
    assert makespan([3.0, 1.0, 2.0], 1, start=5.0) == 11.0
    assert makespan([], 4, start=5.0) == 0.0
    with pytest.raises(ValueError, match="0 workers"):
        makespan([1.0], 0)


def test_the_longest_go_first() -> None:
    assert makespan([1.0, 1.0, 1.0, 1.0, 4.0], 2) == 4.0  # in the order given it would be 6


def test_few_tasks_have_several_cores_each() -> None:
    def seconds(tasks: int, workers: int = 1) -> float:
        phase = Phase("probe", (Task("t", 12.0),) * tasks, start=1.0, cores=4, processes=4)
        return phase.seconds(workers)

    assert seconds(1) == 1 + 12 / 4
    assert seconds(2) == 1 + 12 / 2
    assert seconds(4) == 1 + 12
    assert seconds(8) == 1 + 24
    assert seconds(8, workers=2) == 1 + 12
    assert seconds(8, workers=64) == 1 + 12 / 4
    phase = Phase("probe", (Task("t", 12.0),), start=1.0)
    assert phase.corrected(2.0).seconds() == 1 + 24  # start-up is not corrected
