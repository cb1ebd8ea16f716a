"""Crossings of two regimes and convergence, on curves whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.analysis.convergence import MARGIN, mean_reached, reached, speed_up
from stages.analysis.crossings import crossing
from stages.errors import InputError

DOUBLED = np.array([1, 2, 4, 8, 16, 32])
PAPER_STEPS = [76, 152, 305, 610, 1220, 2441, 4882, 9765, 19531]


@given(st.floats(1.05, 31), st.floats(0.1, 3), st.floats(-2, 2))
def test_lines_in_the_logarithm_cross_where_they_do(at, slope, level):
    second = np.full((1, 6), level)
    first = second + slope * (np.log(DOUBLED) - math.log(at))
    found = crossing(DOUBLED, first, second)
    assert found.verdict == "crosses"
    assert found.at == pytest.approx(at, rel=1e-6)
    assert found.interval == pytest.approx((at, at), rel=1e-6)
    back = crossing(DOUBLED, second, first)
    assert (back.verdict, back.at) == ("not above at the end", None)


def test_the_last_crossing_counts_and_touching_is_not_above():
    zero = np.zeros((1, 4))
    examples = np.array([1, 2, 4, 8])
    found = crossing(examples, np.array([[1.0, -1.0, -1.0, 1.0]]), zero)
    assert found.at == pytest.approx(math.sqrt(32))
    assert crossing(examples, np.array([[0.0, 1.0, 1.0, 1.0]]), zero).at == 1
    assert crossing(examples, zero, zero).verdict == "not above at the end"
    always = crossing(examples, zero + 1, zero)
    assert (always.verdict, always.at, always.interval) == ("always above", None, (None, None))


def test_the_interval_is_that_of_all_27_resamples():
    places = np.array([2.0, 4.0, 16.0])
    second = np.zeros((3, 6))
    first = np.log(DOUBLED) - np.log(places)[:, None]
    found = crossing(DOUBLED, first, second)
    assert (found.resamples, found.exhaustive, found.shares) == (27, True, (1.0, 0.0, 0.0))
    assert found.at == pytest.approx(np.exp(np.log(places).mean()))
    every = sorted(np.exp(np.log([a, b, c]).mean()) for a in places for b in places for c in places)
    assert found.interval == pytest.approx((every[0], every[-1]))
    narrow = crossing(DOUBLED, first, second, level=0.5)
    assert narrow.interval == pytest.approx((every[6], every[20]))


def test_resamples_without_a_crossing_leave_the_interval_open():
    first = np.array([[1.0] * 6, [-1.0] * 6, [-2.0, -1, 0.5, 1, 2, 3]])
    found = crossing(DOUBLED, first, np.zeros((3, 6)))
    assert found.verdict == "crosses"
    assert found.interval == (None, None)
    assert min(found.shares) > 0
    assert sum(found.shares) == pytest.approx(1)


def test_many_repeats_are_drawn_and_seeded():
    rng = np.random.default_rng(0)
    first = np.log(DOUBLED) - 1 + rng.normal(0, 0.2, (8, 6))
    one, other = (crossing(DOUBLED, first, np.zeros((8, 6)), draws=300, seed=s) for s in (0, 0))
    assert one == other
    assert (one.resamples, one.exhaustive) == (300, False)
    low, high = one.interval
    assert low < one.at < high
    assert low < math.e < high


@pytest.mark.parametrize(
    ("examples", "first", "message"),
    [
        ([1, 2], np.zeros((1, 3)), "do not fit"),
        ([1, 1], np.zeros((1, 2)), "ascending"),
        ([0, 1], np.zeros((1, 2)), "above 0"),
        ([1, 2], np.array([[0, np.nan]]), "missing or infinite"),
    ],
)
def test_curves_that_cannot_be_compared_are_refused(examples, first, message):
    with pytest.raises(InputError, match=message):
        crossing(np.array(examples), first, np.zeros(first.shape))


# Convergence


@given(st.floats(0.2, 3), st.floats(-3, 3), st.integers(10, 4000))
def test_interpolation_of_a_line_in_the_logarithm_is_exact(slope, start, plateau):
    """Log odds rise with ln(steps) at every length studied: the threshold lies ln(0.9)/slope before the end."""
    steps = [s for s in PAPER_STEPS if s >= plateau]
    values = [start + slope * math.log(s) for s in steps]
    found = reached(steps, values)
    assert found.threshold == max(values) + math.log(0.9)
    exact = steps[-1] * math.exp(MARGIN / slope)
    assert found.interpolated == pytest.approx(max(exact, steps[0]), rel=1e-9)
    assert found.steps == min(s for s in steps if s >= exact * (1 - 1e-12))
    assert found.censored


def test_the_first_length_that_meets_the_threshold_counts():
    found = reached(PAPER_STEPS, [0, 1, 1.9, 1.85, 2.0, 1.99, 1.5, 1.95, 1.99], n_train=2040)
    assert found.steps == 305
    assert not found.censored
    assert found.epochs == pytest.approx(305 * 256 / 2040)
    share = (2.0 + math.log(0.9) - 1) / 0.9
    assert found.interpolated == pytest.approx(152 * (305 / 152) ** share)
    at_once = reached([100, 200], [1.0, 1.0])
    assert (at_once.steps, at_once.interpolated, at_once.censored, at_once.epochs) == (100, 100, False, None)


def test_means_and_the_speed_up_over_data_sets():
    fast = {"pets": reached([10, 20, 40], [0, 3, 2]), "cars": reached([10, 20, 40], [0, 1, 3])}
    slow = {
        "cars": reached([40, 80], [0, 3]),
        "pets": reached([40, 80, 160], [0, 1, 3]),
        "food": fast["pets"],
    }
    found = speed_up(fast, slow)
    assert found.datasets == ("cars", "pets")
    assert (found.fast.steps, found.slow.steps) == (30, 120)
    assert found.ratio_of_means == 4
    assert found.per_dataset == (2, 8)
    assert found.geometric_mean == pytest.approx(4)
    assert (found.fast.censored, found.slow.censored) == (1, 2)
    assert found.fast.epochs is None
    both = mean_reached([reached([10, 20], [0, 3], batch_size=5, n_train=n) for n in (10, 20)])
    assert both.epochs == 7.5


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([10], [1.0], "two or more"),
        ([10, 20], [1.0], "two or more"),
        ([20, 10], [1.0, 2.0], "ascending"),
        ([10, 20], [1.0, math.inf], "finite"),
    ],
)
def test_curves_without_an_answer_are_refused(steps, values, message):
    with pytest.raises(InputError, match=message):
        reached(steps, values)


def test_nothing_to_average_is_said():
    with pytest.raises(InputError, match="nothing to average"):
        mean_reached([])
    with pytest.raises(InputError, match="no data set in common"):
        speed_up({"a": reached([1, 2], [0, 1])}, {})
