"""Coordinates that people, and other people's entries, may name as they like."""

import json

import numpy as np
import pytest

from cache import CacheKey
from pipeline.cache_folder import open_store


@pytest.fixture
def odd(workshop):
    """An entry whose coordinates are named like the figures of a list."""
    metadata = {
        "coordinates": {
            "backbone": "b",
            "dataset": "日本",
            "key": "fake",
            "rows": 999999,
            "bytes": "x",
            "seed": 3,
        },
        "class_names": ["a"],
        "multi_label": False,
        "expected_rows": 1,
    }
    key = CacheKey.from_ingredients({"made": "elsewhere"})
    with open_store().writer(key, metadata) as writer:
        writer.append(np.ones((1, 2), np.float32), np.array([0]), ["x"], stop=1)
        writer.publish()
    return key.digest


def test_a_coordinate_named_like_a_figure_stands_apart(odd, penultimate):
    (row,) = json.loads(penultimate("cache", "list", "--json").out)
    assert (row["key"], row["rows"], row["dimension"]) == (odd, 1, 2)
    assert (row["coordinate key"], row["coordinate rows"]) == ("fake", 999999)
    assert penultimate("cache", "list").status == 0
    (moved,) = json.loads(penultimate("cache", "gc", "--older-than", "0", "--dry-run", "--json").out)["moved"]
    assert moved["key"] == odd


def test_values_are_compared_as_people_write_them(odd, penultimate):
    assert len(json.loads(penultimate("cache", "list", "seed=3", "--json").out)) == 1
    assert json.loads(penultimate("cache", "list", "dataset=None", "--json").out) == []
    assert "no entry has a coordinate 'self'" in penultimate("cache", "list", "self=1").err


def test_own_features_get_no_coordinate_named_like_a_figure(workshop, penultimate):
    np.save(workshop.folder / "f.npy", np.ones((1, 2), np.float32))
    (workshop.folder / "l.csv").write_text("id,label\nx,a\n")
    names = ("backbone=b", "dataset=d", "split=train", "rows=7")
    done = penultimate(
        "cache", "import", str(workshop.folder / "f.npy"), str(workshop.folder / "l.csv"), *names
    )
    assert (done.status, "'rows' is what a list shows itself" in done.err) == (2, True)


def test_nothing_is_verified_before_a_mistake_is_told(odd, penultimate):
    path = open_store().path_of(odd)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = penultimate("cache", "verify", "--recompute", "1")
    assert (done.status, path.exists()) == (2, True)


@pytest.mark.parametrize("total", ["1e300", "inf", "-1"])
def test_an_amount_that_nobody_means_is_refused(penultimate, total):
    done = penultimate("cache", "gc", "--largest-total", total)
    assert (done.status, done.err.count("\n")) == (2, 1)


def test_a_home_that_nobody_has_is_told(penultimate, monkeypatch):
    monkeypatch.setenv("PENULTIMATE_CACHE", "~nobody-of-this-name/cache")
    done = penultimate("cache", "list")
    assert (done.status, "write $PENULTIMATE_CACHE as a whole path" in done.err) == (2, True)
