"""The grid and the choice of its best point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.train import GridPoint, grid, log_spaced, select
from stages.train.grid import promote, rungs


def test_the_papers_grid() -> None:
    rates, decays = log_spaced(1e-4, 1e-1, 7), log_spaced(1e-6, 1e-3, 7)
    np.testing.assert_allclose(rates, np.logspace(-4, -1, 7), rtol=1e-9)
    points = grid(rates, (0.0, *decays))
    assert len(points) == 7 * 8
    assert len(set(points)) == 56
    assert points[0] == GridPoint(1e-4, 0.0)
    assert points[-1] == GridPoint(1e-1, 1e-3)


def test_a_grid_of_one_and_bad_grids() -> None:
    assert log_spaced(0.5, 0.5, 1) == (0.5,)
    for arguments in ((0.0, 1.0, 3), (2.0, 1.0, 3), (1.0, 2.0, 0)):
        with pytest.raises(InputError):
            log_spaced(*arguments)
    for rates, decays in (
        ((), (0.0,)),
        ((0.1,), ()),
        ((0.0,), (0.0,)),
        ((0.1,), (-1.0,)),
        ((float("nan"),), (0.0,)),
    ):
        with pytest.raises(InputError):
            grid(rates, decays)


def test_ties_go_to_the_smaller_rate_then_the_larger_decay() -> None:
    points = [GridPoint(r, c) for r in (0.1, 0.01, 0.001) for c in (0.0, 1e-4, 1e-3)]
    values = [0.5, 0.5, 0.4, 0.5, 0.5, 0.2, 0.1, 0.1, 0.1]
    chosen = select(points, values)
    assert chosen.point == GridPoint(0.01, 1e-4)
    assert chosen.tied == (GridPoint(0.01, 0.0), GridPoint(0.1, 1e-4), GridPoint(0.1, 0.0))
    assert any(
        "4 grid points tie at 0.5; taken: learning rate 0.01, weight decay 0.0001" in w
        for w in chosen.warnings
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([0.0, 1e-3]), st.sampled_from([0.1, 0.5])
        ),
        min_size=1,
        unique_by=lambda t: t[:2],
    ),
    st.randoms(),
)
def test_the_choice_does_not_depend_on_the_order(
    rows: list[tuple[float, float, float]], random: object
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    chosen = [
        select([GridPoint(r, c) for r, c, _ in order], [v for *_, v in order]) for order in (rows, shuffled)
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0].value == max(v for *_, v in rows)


def test_an_optimum_at_the_edge_is_reported_and_one_inside_is_not() -> None:
    points = [GridPoint(r, c) for r in (0.1, 0.2, 0.3) for c in (0.0, 1e-4, 1e-3, 1e-2)]

    def warned(best: GridPoint) -> tuple[str, ...]:
        return select(points, [1.0 if p == best else 0.0 for p in points]).warnings

    assert warned(GridPoint(0.2, 1e-3)) == ()
    assert "largest" in warned(GridPoint(0.3, 1e-3))[0]
    assert "smallest" in warned(GridPoint(0.1, 1e-3))[0]
    assert "weight_decay" in warned(GridPoint(0.2, 1e-2))[0]
    assert warned(GridPoint(0.2, 0.0)) == ()
    assert select([GridPoint(0.1, 0.0)], [0.5]).warnings == ()


def test_diverged_points_are_left_out_and_counted() -> None:
    points = [GridPoint(0.1, 0.0), GridPoint(1.0, 0.0)]
    chosen = select(points, [0.3, None])
    assert chosen.point == points[0]
    assert any("1 of 2 grid points diverged" in w for w in chosen.warnings)
    with pytest.raises(InputError, match="all 2 grid points diverged"):
        select(points, [None, None])
    with pytest.raises(InputError, match="1 values for 2"):
        select(points, [0.3])


@given(st.integers(1, 200), st.integers(1, 50_000), st.integers(2, 5))
def test_rungs_end_at_full_length_with_a_choice(n: int, steps: int, factor: int) -> None:
    found = rungs(n, steps, factor)
    assert found[0].points == n
    assert found[-1].steps == steps
    assert found[-1].points > 1 or n == 1
    assert all(a.points > b.points and a.steps < b.steps for a, b in itertools.pairwise(found))
    assert all(rung.steps >= 1 for rung in found)


def test_diverged_points_are_never_promoted() -> None:
    points = [GridPoint(rate, 0.0) for rate in (0.1, 0.2, 0.3)]
    assert promote(points, [None, 0.1, None], 2) == (points[1],)
    assert promote(points, [0.5, 0.5, 0.5], 1) == (points[0],)


def test_a_factor_that_keeps_everything_is_refused() -> None:
    with pytest.raises(InputError, match="keeps everything"):
        rungs(9, 100, 1)
