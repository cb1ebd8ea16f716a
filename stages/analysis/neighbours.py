"""Votes of the k nearest training rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.analysis.checks import check_pair
from stages.analysis.search import Distance, Nearest, nearest_rows
from stages.analysis.selection import Candidate, ReadOut, best_of, check_fold, folds_of, pooled, trials
from stages.errors import InputError
from stages.metrics import evaluate
from stages.records import FeatureTable, Metric

Array = NDArray[Any]
Vote = Literal["exponential", "uniform", "inverse_distance"]

NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
"""Of the exponential vote (Wu et al. 2018, section 3.4)."""


def k_nearest_neighbours(
    train: FeatureTable,
    test: FeatureTable,
    metric: Metric,
    *,
    ks: Sequence[int] = NEIGHBOURS,
    distance: Distance = "cosine",
    vote: Vote | None = None,
    temperature: float = TEMPERATURE,
    fold: Array | None = None,
) -> ReadOut:
    """Classify by a vote of the k nearest training rows, k chosen on rows that do not vote.

    Parameters
    ----------
    train : FeatureTable
        All rows that may vote: train + validation where there is a validation split.
    test : FeatureTable
        Scored once.
    metric : {"top_1", "mean_per_class", "map_11_point"}
        The data set's own; it also chooses k.
    ks : sequence of int
        Candidates; a single one is not chosen but stated. Those larger than what a trial leaves to vote are
        left out with a warning.
    distance : {"cosine", "euclidean"}
        What "nearest" means.
    vote : {"exponential", "uniform", "inverse_distance"}, optional
        Weight of a neighbour: exp(cosine / temperature) (Wu et al. 2018, "Unsupervised feature learning via
        non-parametric instance discrimination", section 3.4; the default for cosine), 1 (Cover and Hart
        1967), or one over its distance (after Dudani 1976; the default for euclidean, an identical row
        outvotes every other).
    temperature : float
        Of the exponential vote.
    fold : ndarray of int, shape (n,), optional
        Fold of each training row, -1 = votes in every fold; ``ProbeResult.folds`` fits. Default: five
        stratified folds, seed 0, groups and identical images kept together.

    Returns
    -------
    ReadOut
        Scores are shares of the vote, a multi-label row's share being taken among the neighbours that do not
        ignore the label.

    Raises
    ------
    InputError
        Tables that do not fit each other, a setting out of range, or no k that can be asked of the rows.
    """
    started = time.perf_counter()
    check_pair(train, test, metric)
    vote = vote or ("exponential" if distance == "cosine" else "inverse_distance")
    voters = _Voters(train, distance, vote, temperature)
    candidates, method, warnings, k = _choose(voters, metric, list(ks), fold)
    nearest = nearest_rows(test.features, train.features, k, distance=distance)
    scores = voters.scores(nearest, [k])[0]
    settings: dict[str, str | float] = {"k": k, "distance": distance, "vote": vote}
    if vote == "exponential":
        settings["temperature"] = temperature
    return ReadOut(
        name="k_nearest_neighbours",
        metric=metric,
        value=evaluate(metric, test.labels, scores),
        settings=settings,
        selection=tuple(candidates),
        selection_method=method,
        test_scores=scores,
        n_train=len(train.labels),
        n_test=len(test.labels),
        seconds=time.perf_counter() - started,
        warnings=tuple(warnings),
    )


class _Voters:
    """Training rows and how they vote."""

    def __init__(self, table: FeatureTable, distance: Distance, vote: Vote, temperature: float) -> None:
        if vote not in ("exponential", "uniform", "inverse_distance"):
            raise InputError(f"vote {vote!r} is unknown: use exponential, uniform or inverse_distance")
        if vote == "exponential" and distance != "cosine":
            raise InputError('vote "exponential" weighs cosines: use distance "cosine" or another vote')
        if not temperature > 0:
            raise InputError(f"temperature = {temperature}: give a number above 0")
        self.table, self.distance, self.vote, self.temperature = table, distance, vote, temperature
        self.n_classes = len(table.class_names)

    def scores(self, nearest: Nearest, ks: Sequence[int]) -> list[NDArray[np.float64]]:
        """Return (q, K) shares of the vote for each k, ascending."""
        weights = self._weights(nearest.closeness)
        found, low = [], 0
        given = np.zeros((len(weights), self.n_classes))
        asked = np.zeros((len(weights), self.n_classes))
        for k in ks:
            for column in range(low, k):
                self._cast(given, asked, nearest.rows[:, column], weights[:, column])
            low = k
            found.append(np.divide(given, asked, out=np.zeros_like(given), where=asked > 0))
        return found

    def _cast(self, given: Array, asked: Array, rows: NDArray[np.intp], weights: Array) -> None:
        """Add one neighbour's vote for every query."""
        labels = self.table.labels[rows]
        if labels.ndim == 1:
            given[np.arange(len(rows)), labels] += weights
            asked += weights[:, None]
        else:
            given += weights[:, None] * (labels == 1)
            asked += weights[:, None] * (labels >= 0)

    def _weights(self, closeness: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (q, k) weights of the neighbours."""
        if self.vote == "uniform":
            return np.ones_like(closeness)
        if self.vote == "exponential":
            # Relative to the nearest one, which leaves the shares as they are and cannot overflow.
            return np.exp((closeness - closeness[:, :1]) / self.temperature)
        distances = np.sqrt(-closeness) if self.distance == "euclidean" else np.maximum(1 - closeness, 0)
        same = distances == 0
        inverse = 1 / np.where(same, 1, distances)
        return np.where(same.any(axis=1, keepdims=True), same.astype(np.float64), inverse)


def _choose(
    voters: _Voters, metric: Metric, ks: list[int], fold: Array | None
) -> tuple[list[Candidate], str, list[str], int]:
    """Return every candidate, the selection in words, warnings and the chosen k."""
    n = len(voters.table.labels)
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise InputError(f"ks = {ks}: give whole numbers above 0, each once")
    if len(ks) == 1:
        if ks[0] > n:
            raise InputError(f"k = {ks[0]} neighbours of {n} training rows: give at most that many")
        return [], "k as given", [], ks[0]
    fold, method = check_fold(folds_of(voters.table) if fold is None else fold, n)
    parts = trials(fold)
    smallest = min(len(fitted) for fitted, _ in parts)
    possible = sorted(k for k in ks if k <= smallest)
    if not possible:
        raise InputError(
            f"every k of {ks} is larger than the {smallest} rows left to vote: give smaller ones"
        )
    warnings = []
    if len(possible) < len(ks):
        warnings.append(f"k above {smallest} left out: no more training rows vote in a fold")
    outcomes: list[list[tuple[Array, Array]]] = [[] for _ in possible]
    for fitted, held in parts:
        features = voters.table.features
        nearest = nearest_rows(
            features,
            features,
            possible[-1],
            distance=voters.distance,
            query_rows=held,
            base_rows=fitted,
        )
        for outcome, scores in zip(outcomes, voters.scores(nearest, possible), strict=True):
            outcome.append((voters.table.labels[held], scores))
    candidates = [Candidate(k, pooled(metric, o)) for k, o in zip(possible, outcomes, strict=True)]
    return candidates, method, warnings, int(best_of(candidates).setting)
