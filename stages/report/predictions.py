"""What trained models predicted for every test image: the input of the tests of two models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import JoinError
from stages.records import Regime


@dataclass(frozen=True)
class Predictions:
    """One trained model's scores on the test split of one data set."""

    backbone: str
    """Label: the name, or name@variant."""
    dataset: str
    regime: Regime
    scores: NDArray[np.floating[Any]]
    """(n, K) logits or probabilities, the larger the likelier; finite or infinite, not NaN."""
    labels: NDArray[Any]
    """(n,) integers, or (n, K) of 1, 0 and -1 (ignored pair)."""
    ids: tuple[str, ...]
    """n sample ids: two models are compared on the same images, in whatever order each has them."""
    seed: int | None = None
    source: str = ""
    """Which file it was read from, for messages."""


Group = tuple[str, Regime]
"""(data set, regime): within one, models are compared with each other."""


def comparable(predictions: Iterable[Predictions]) -> dict[Group, list[Predictions]]:
    """Group models that saw the same test images, their rows in one common order.

    Parameters
    ----------
    predictions : iterable of Predictions
        In any order. Of several seeds of one backbone the lowest stands for it: the tests compare
        trained models, one each.

    Returns
    -------
    dict
        (data set, regime) -> one `Predictions` per backbone, in order of appearance.

    Raises
    ------
    JoinError
        If two models of a group were scored on different images or labels.
    """
    chosen: dict[tuple[str, Regime, str], Predictions] = {}
    for one in predictions:
        _check(one)
        key = (one.dataset, one.regime, one.backbone)
        if key not in chosen or _seed(one) < _seed(chosen[key]):
            chosen[key] = one
    groups: dict[Group, list[Predictions]] = {}
    for (dataset, regime, _), one in chosen.items():
        group = groups.setdefault((dataset, regime), [])
        group.append(_aligned(one, group[0]) if group else one)
    return groups


def _seed(one: Predictions) -> int:
    """The seed, or -1 where there is none."""
    return -1 if one.seed is None else one.seed


def named(one: Predictions) -> str:
    """Return the model and its source, for messages."""
    return f"{one.backbone} / {one.dataset} / {one.regime} ({one.source or 'no source'})"


def _check(one: Predictions) -> None:
    """Refuse arrays that do not fit each other."""
    if not len(one.ids) == len(one.labels) == len(one.scores) or one.scores.ndim != 2:
        shapes = f"{len(one.ids)} ids, labels {one.labels.shape}, scores {one.scores.shape}"
        raise JoinError(f"{named(one)}: {shapes} do not fit: run the job again")
    if len(set(one.ids)) != len(one.ids):
        raise JoinError(f"{named(one)}: two test rows have the same id: run the job again")


def _aligned(one: Predictions, first: Predictions) -> Predictions:
    """The same predictions in the order of the group's first model."""
    if one.ids != first.ids:
        at = {name: row for row, name in enumerate(one.ids)}
        if set(at) != set(first.ids):
            raise JoinError(f"{named(one)} and {named(first)}: scored on different images: run one again")
        rows = np.array([at[name] for name in first.ids])
        one = Predictions(
            one.backbone,
            one.dataset,
            one.regime,
            one.scores[rows],
            one.labels[rows],
            first.ids,
            one.seed,
            one.source,
        )
    if one.labels.shape != first.labels.shape or not np.array_equal(one.labels, first.labels):
        raise JoinError(f"{named(one)} and {named(first)}: scored on different labels: run one again")
    return one
