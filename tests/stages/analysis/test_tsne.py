from __future__ import annotations

import numpy as np
import pytest

from stages.analysis.tsne import choose_classes, tsne_maps
from stages.errors import InputError


@pytest.fixture
def entries(blobs, table):
    """Two entries of the same rows, the second in another order and of another width; its classes overlap."""
    x, y = blobs(60, d=6, K=4, spread=6)
    z, _ = blobs(60, d=9, K=4, spread=0)
    order = np.random.default_rng(0).permutation(60)
    return {
        "first": table(x, y),
        "second": table(z[order], y[order], ids=tuple(str(i) for i in order)),
    }


def test_two_entries_of_the_same_rows_side_by_side(entries):
    found = tsne_maps(entries, ["c1", "c3"], perplexity=5, seed=3)
    assert found.class_names == ("c1", "c3")
    assert [one.entry for one in found.maps] == ["first", "second"]
    assert all(one.coordinates.shape == (30, 2) for one in found.maps)
    assert [int(i) % 4 for i in found.ids] == [(1, 3)[k] for k in found.labels]
    assert (found.perplexity, found.seed) == (5, 3)
    assert found.method.startswith("scikit-learn")
    columns = found.table()
    assert {len(column) for column in columns.values()} == {60}
    assert columns["class"][:2] == ["c1", "c3"]
    assert columns["entry"][29:31] == ["first", "second"]
    assert columns["x"][30] == found.maps[1].coordinates[0, 0]
    apart = [separation(one.coordinates, found.labels) for one in found.maps]
    assert apart[0] > 3 > 1 > apart[1]


def separation(points, labels):
    """Distance of the two class means in units of the spread within."""
    parts = [points[labels == k] for k in (0, 1)]
    within = np.sqrt(np.mean([p.var(axis=0).sum() for p in parts]))
    return np.linalg.norm(parts[0].mean(axis=0) - parts[1].mean(axis=0)) / within


def test_the_same_seed_gives_the_same_map(entries):
    one, other = (tsne_maps(entries, ["c0", "c1"], perplexity=5) for _ in range(2))
    assert one.table() == other.table()


def test_classes_are_drawn_by_the_seed_or_named():
    names = tuple(f"c{k}" for k in range(30))
    drawn = choose_classes(names, seed=1)
    assert len(drawn) == 10
    assert drawn == choose_classes(names, seed=1) != choose_classes(names, seed=2)
    assert list(drawn) == sorted(drawn, key=names.index)
    assert choose_classes(names, ["c7", "c2"]) == ("c2", "c7")
    assert choose_classes(names[:4]) == names[:4]
    with pytest.raises(InputError, match="class 'rose' is unknown; did you mean 'roses'"):
        choose_classes(("roses", "lilies"), ["rose"])
    with pytest.raises(InputError, match="1 classes to show"):
        choose_classes(names, ["c7", "c7"])


def test_entries_of_other_images_are_refused(entries, blobs, table):
    x, y = blobs(30, d=6, K=4)
    with pytest.raises(InputError, match="first and other have different images"):
        tsne_maps({**entries, "other": table(x, y)}, perplexity=5)
    with pytest.raises(InputError, match="different classes"):
        tsne_maps({**entries, "other": table(x, y, K=5)}, perplexity=5)
    for wrong in (0, -5, float("nan")):
        with pytest.raises(InputError, match="give a number above 0"):
            tsne_maps({"one": table(x, y)}, perplexity=wrong)
    with pytest.raises(InputError, match="second: the 30 images to be shown have the same features"):
        tsne_maps({"first": table(x, y), "second": table(np.ones_like(x), y)}, perplexity=5)
    with pytest.raises(InputError, match="perplexity 30 needs more than 30 images and the classes have 30"):
        tsne_maps(entries, ["c0", "c1"])
    with pytest.raises(InputError, match="no entry"):
        tsne_maps({})
