"""t-SNE maps of cached features, several entries of the same rows side by side (protocol, Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.analysis.checks import check_single_label, check_table
from stages.errors import InputError
from stages.names import did_you_mean
from stages.records import FeatureTable

CLASSES = 10
"""Drawn where none are named, as in the paper's figure."""
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Map:
    """One entry's features in the plane."""

    entry: str
    coordinates: NDArray[np.float64]
    """(n, 2), without unit; only who lies near whom means something."""
    divergence: float
    """Kullback-Leibler divergence at the end, nats: what the map loses. Not comparable between data sets."""
    steps: int
    """Of the optimiser."""


@dataclass(frozen=True)
class Maps:
    """Several entries' features of the same rows in the plane, and everything that has to be said with them."""

    maps: tuple[Map, ...]
    ids: tuple[str, ...]
    """(n,)."""
    labels: NDArray[np.int64]
    """(n,) index into ``class_names``."""
    class_names: tuple[str, ...]
    """Of the classes shown."""
    perplexity: float
    seed: int
    method: str
    """In words, with the version of the library."""

    def table(self) -> dict[str, list[str] | list[float]]:
        """Return columns entry, id, class, x, y; one row for each entry and image."""
        n, names = len(self.ids), [self.class_names[k] for k in self.labels]
        points = np.concatenate([one.coordinates for one in self.maps])
        return {
            "entry": [one.entry for one in self.maps for _ in range(n)],
            "id": list(self.ids) * len(self.maps),
            "class": names * len(self.maps),
            "x": points[:, 0].tolist(),
            "y": points[:, 1].tolist(),
        }


def choose_classes(
    class_names: Sequence[str], wanted: Sequence[str] | None = None, *, count: int = CLASSES, seed: int = 0
) -> tuple[str, ...]:
    """Return the classes to be shown, in the order of ``class_names``.

    Parameters
    ----------
    class_names
        All classes.
    wanted
        Names; None = ``count`` drawn ones, or all where there are no more.
    seed
        Of the draw.

    Raises
    ------
    InputError
        An unknown name, with the nearest known ones, or fewer than two classes.
    """
    for name in wanted or ():
        if name not in class_names:
            raise InputError(f"class {name!r} is unknown{did_you_mean(name, class_names)}")
    chosen = set(range(len(class_names)))
    if wanted is not None:
        chosen = {list(class_names).index(name) for name in wanted}
    elif count < len(class_names):
        rng = np.random.Generator(np.random.PCG64(seed))
        chosen = set(rng.permutation(len(class_names))[: max(count, 0)].tolist())
    if len(chosen) < 2:
        raise InputError(f"{len(chosen)} classes to show: take at least two")
    return tuple(class_names[k] for k in sorted(chosen))


def tsne_maps(
    entries: Mapping[str, FeatureTable],
    classes: Sequence[str] | None = None,
    *,
    count: int = CLASSES,
    perplexity: float = PERPLEXITY,
    seed: int = 0,
) -> Maps:
    """Lay features out in the plane with scikit-learn's t-SNE.

    Parameters
    ----------
    entries : mapping of label to FeatureTable
        The same single-label rows through one or more backbones; rows are matched by id.
    classes : sequence of str, optional
        Which classes; None = ``count`` drawn ones.
    count, seed : int
        Of the classes drawn; the seed is the optimiser's too.
    perplexity : float
        About how many neighbours count.

    Returns
    -------
    Maps

    Raises
    ------
    InputError
        Entries of different images or labels, an unknown class, fewer rows than the perplexity needs, or rows
        that are all alike.

    Notes
    -----
    van der Maaten and Hinton 2008; van der Maaten 2014 (Barnes-Hut). Features as they are, euclidean, started
    from their first two principal components, learning rate "auto", 1,000 steps at most, on
    one thread so that the seed decides alone. The figure of the paper states neither perplexity nor seed: 30
    is the library's default.
    """
    first = _checked(entries)
    names = choose_classes(first.class_names, classes, count=count, seed=seed)
    numbers = [first.class_names.index(name) for name in names]
    rows = np.flatnonzero(np.isin(first.labels, numbers))
    if not perplexity > 0:
        raise InputError(f"perplexity {perplexity:g}: give a number above 0, such as {PERPLEXITY:g}")
    if not perplexity < len(rows):
        raise InputError(
            f"perplexity {perplexity:g} needs more than {perplexity:g} images and the classes have {len(rows)}: "
            "lower it or show more classes"
        )
    ids = tuple(first.ids[i] for i in rows)
    # All are read before the first is laid out, which takes minutes where there are many.
    shown = {label: _features(label, table, ids) for label, table in entries.items()}
    import sklearn

    return Maps(
        maps=tuple(_map(label, features, perplexity, seed) for label, features in shown.items()),
        ids=ids,
        labels=np.searchsorted(numbers, first.labels[rows]).astype(np.int64),
        class_names=names,
        perplexity=perplexity,
        seed=seed,
        method=f"scikit-learn {sklearn.__version__} TSNE, Barnes-Hut, start from two principal components",
    )


def _checked(entries: Mapping[str, FeatureTable]) -> FeatureTable:
    """Return the first entry, or raise `InputError` where the others are of other rows."""
    if not entries:
        raise InputError("no entry to lay out: name at least one")
    label, first = next(iter(entries.items()))
    known = dict(zip(first.ids, first.labels.tolist(), strict=True))
    for other, table in entries.items():
        check_single_label(table.labels, "a map of classes")
        check_table(table, other)
        if table.class_names != first.class_names:
            raise InputError(f"{label} and {other} have different classes: take entries of one split")
        if dict(zip(table.ids, table.labels.tolist(), strict=True)) != known:
            raise InputError(
                f"{label} and {other} have different images or labels: take entries of one split"
            )
    return first


def _features(label: str, table: FeatureTable, ids: Sequence[str]) -> NDArray[np.float64]:
    """Return the features of the rows of these ids, or raise `InputError` where all are the same."""
    where = {name: i for i, name in enumerate(table.ids)}
    rows = np.array([where[name] for name in ids])
    order = np.argsort(rows)
    features = np.empty((len(rows), table.features.shape[1]), dtype=np.float64)
    # Rows of a mapped file are read in ascending order, whatever the order of the ids.
    features[order] = np.asarray(table.features[rows[order]])
    if not np.ptp(features, axis=0).any():
        raise InputError(
            f"{label}: the {len(ids)} images to be shown have the same features: nothing to lay out"
        )
    return features


def _map(label: str, features: NDArray[np.float64], perplexity: float, seed: int) -> Map:
    """Lay one entry out."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    worker = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    # One thread: sums over several come out in another order, and so does the map in the end; and on a machine
    # with other work to do, two threads that wait for each other take many times as long.
    with threadpool_limits(1):
        points = worker.fit_transform(features)
    return Map(label, points.astype(np.float64), float(worker.kl_divergence_), int(worker.n_iter_))
