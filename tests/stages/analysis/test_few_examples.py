from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.analysis.few_examples import doublings, draw_subsets
from stages.errors import InputError


@st.composite
def problems(draw):
    K = draw(st.integers(1, 5))
    counts = draw(st.lists(st.integers(4, 12), min_size=K, max_size=K))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.permutation(np.repeat(np.arange(K), counts))
    held = rng.permutation(np.repeat(np.arange(K), draw(st.lists(st.integers(0, 7), min_size=K, max_size=K))))
    numbers = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True))
    return labels, held, tuple(f"c{k}" for k in range(K)), numbers, draw(st.integers(0, 2**31))


@settings(max_examples=80, deadline=None)
@given(problems(), st.sampled_from(["nested", "independent"]), st.sampled_from(["full", "proportional"]))
def test_subsets_have_exact_counts_no_row_twice_and_come_again(problem, draw, rule):
    labels, held, names, numbers, seed = problem
    arguments = {"validation_labels": held, "repeats": 2, "seed": seed, "draw": draw, "rule": rule}
    subsets = draw_subsets(labels, names, numbers, **arguments)
    assert [(s.repeat, s.per_class) for s in subsets] == [(r, n) for r in (0, 1) for n in numbers]
    for subset in subsets:
        assert (np.bincount(labels[subset.train], minlength=len(names)) == subset.per_class).all()
        assert (np.diff(subset.train) > 0).all()
        assert (np.diff(subset.validation) > 0).all()
        for k in range(len(names)):
            there, own = (held == k).sum(), (held[subset.validation] == k).sum()
            share = there * subset.per_class / (labels == k).sum()
            assert own == (there if rule == "full" else np.ceil(share - 1e-9))
    for subset, again in zip(subsets, draw_subsets(labels, names, numbers, **arguments), strict=True):
        assert (subset.train == again.train).all()
        assert (subset.validation == again.validation).all()


@settings(max_examples=50, deadline=None)
@given(problems())
def test_nested_subsets_are_nested(problem):
    labels, held, names, numbers, seed = problem
    found = draw_subsets(
        labels, names, sorted(numbers), validation_labels=held, seed=seed, rule="proportional"
    )
    for repeat in range(3):
        own = [s for s in found if s.repeat == repeat]
        for small, large in pairwise(own):
            assert set(small.train) <= set(large.train)
            assert set(small.validation) <= set(large.validation)


@settings(max_examples=50, deadline=None)
@given(problems(), st.sampled_from(["nested", "independent"]))
def test_a_subset_does_not_depend_on_what_else_is_asked_for(problem, draw):
    labels, _, names, numbers, seed = problem
    alone = draw_subsets(labels, names, numbers[-1:], seed=seed, repeats=1, draw=draw)[0]
    among = [s for s in draw_subsets(labels, names, numbers, seed=seed, draw=draw) if s.repeat == 0][-1]
    assert (alone.train == among.train).all()


def test_repeats_seeds_and_independent_draws_differ():
    labels = np.arange(400) % 2
    nested = draw_subsets(labels, ("a", "b"), (4, 8))
    assert len({tuple(s.train) for s in nested}) == 6
    other = draw_subsets(labels, ("a", "b"), (4, 8), seed=1)
    assert {tuple(s.train) for s in nested}.isdisjoint({tuple(s.train) for s in other})
    independent = draw_subsets(labels, ("a", "b"), (4, 8), draw="independent")
    assert not set(independent[0].train) <= set(independent[1].train)


def test_every_row_is_as_likely_as_any_other():
    labels = np.repeat([0, 1], [10, 5])
    counts = np.zeros(15)
    for subset in draw_subsets(labels, ("a", "b"), (1,), repeats=3000):
        counts[subset.train] += 1
    assert np.abs(counts[:10] - 300).max() < 5 * np.sqrt(300 * 0.9)
    assert np.abs(counts[10:] - 600).max() < 5 * np.sqrt(600 * 0.8)


def test_the_draw_is_pinned():
    subset = draw_subsets(np.arange(20) % 2, ("a", "b"), (3,), repeats=1)[0]
    assert subset.train.tolist() == [3, 4, 8, 11, 12, 13]
    assert (subset.seed, subset.draw, subset.rule, subset.validation.tolist()) == (0, "nested", "full", [])


def test_doublings_end_where_the_smallest_class_does():
    labels = np.repeat([0, 1], [40, 17])
    assert doublings(labels, ("a", "b")) == (1, 2, 4, 8, 16)
    assert doublings(labels, ("a", "b"), largest=8) == (1, 2, 4, 8)
    assert doublings(labels, ("a", "b"), largest=1) == (1,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"per_class": (1, 8)},
            "8 examples a class asked for, but 2 of 3 classes have fewer, the smallest is 'c'",
        ),
        ({"per_class": ()}, "whole numbers above 0"),
        ({"per_class": (2, 2)}, "each once"),
        ({"repeats": 0}, "repeats = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"draw": "stacked"}, "draw = 'stacked'"),
        ({"rule": "half"}, "validation = 'half'"),
        ({"validation_labels": np.array([3])}, "validation: a label lies outside"),
    ],
)
def test_wrong_arguments_are_one_line(change, message):
    arguments = {"per_class": (1, 2), **change}
    with pytest.raises(InputError, match=message) as caught:
        draw_subsets(np.repeat([0, 1, 2], [9, 5, 3]), ("a", "b", "c"), **arguments)
    assert "\n" not in str(caught.value)


def test_a_class_without_rows_and_several_labels_are_refused():
    with pytest.raises(InputError, match="the smallest is 'b' with 0"):
        doublings(np.zeros(5, int), ("a", "b"))
    with pytest.raises(InputError, match="needs one label an image"):
        doublings(np.zeros((5, 2), np.int8), ("a", "b"))
    with pytest.raises(InputError, match="16 examples a class asked for"):
        doublings(np.zeros(5, int), ("a",), largest=16)
