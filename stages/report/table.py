"""The joined table: every cell of backbone x dataset x regime, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Literal, cast

import numpy as np
import pandas as pd

from stages.records import Metric, Regime, Score
from stages.report.logodds import clamp, floor_of, log_odds

CellStatus = Literal["complete", "partial", "diverged", "failed", "missing", "not planned"]

CELL_COLUMNS = (
    "backbone",
    "dataset",
    "regime",
    "metric",
    "value",
    "log_odds",
    "clamped",
    "status",
    "seeds_complete",
    "seeds_planned",
    "n_test",
    "imagenet_top1",
)
SCORE_COLUMNS = tuple(f.name for f in fields(Score))


def label_of(score: Score) -> str:
    """Return what people read and tables are indexed by: the name, with the variant where there is one."""
    return f"{score.backbone}@{score.variant}" if score.variant else score.backbone


@dataclass(frozen=True)
class TransferTable:
    """Scores of a study, joined: made by :func:`stages.report.join_scores`, never by hand.

    A cell is one backbone x dataset x regime. Its value is the arithmetic mean of the metric over its
    complete seeds; its log odds are those of that mean, clamped as the protocol says ("Statistics").
    """

    scores: tuple[Score, ...]
    """One row per backbone x dataset x regime x seed, missing cells included, no duplicates."""
    backbones: tuple[str, ...]
    """Labels (name, or name@variant), in the order of the study."""
    datasets: tuple[str, ...]
    regimes: tuple[Regime, ...]
    metrics: Mapping[str, Metric]
    """Of each data set."""
    imagenet_top1: Mapping[str, float | None]
    """Fraction, of each backbone; None = unknown, left out of correlations."""
    test_counts: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Test rows (multi-label: positives) of each class, of the data sets where the caller knew them."""
    notes: tuple[str, ...] = ()
    """What was done to join the rows that a reader must know."""

    @cached_property
    def _cells(self) -> pd.DataFrame:
        """One row per cell of the full product, in the table's order."""
        found: dict[tuple[str, str, str], list[Score]] = {}
        for score in self.scores:
            found.setdefault((label_of(score), score.dataset, score.regime), []).append(score)
        seeds = self._seeds()
        rows = [
            self._cell(
                backbone,
                dataset,
                regime,
                found.get((backbone, dataset, regime), []),
                seeds.get((backbone, regime)),
            )
            for regime in self.regimes
            for backbone in self.backbones
            for dataset in self.datasets
        ]
        return pd.DataFrame(rows, columns=list(CELL_COLUMNS))

    def _seeds(self) -> dict[tuple[str, Regime], set[int]]:
        """The seeds that each backbone has in each regime, on any data set."""
        found: dict[tuple[str, Regime], set[int]] = {}
        for score in self.scores:
            if score.seed is not None:
                found.setdefault((label_of(score), score.regime), set()).add(score.seed)
        return found

    def _cell(
        self, backbone: str, dataset: str, regime: Regime, scores: list[Score], seeds: set[int] | None
    ) -> dict[str, object]:
        """One row of the cell view."""
        planned = len(seeds or ()) if scores and all(s.seed is not None for s in scores) else len(scores)
        complete = [s for s in scores if s.value is not None]
        values = [s.value for s in complete if s.value is not None]
        value = float(np.mean(values)) if values else np.nan
        tests = {s.n_test for s in complete if s.n_test is not None}
        n_test = min(tests) if tests else None
        metric = self.metrics[dataset]
        floor = floor_of(metric, n_test, self.test_counts.get(dataset))
        clamped = clamp(value, floor) if values else value
        return {
            "backbone": backbone,
            "dataset": dataset,
            "regime": regime,
            "metric": metric,
            "value": value,
            "log_odds": float(log_odds(clamped)) if values else np.nan,
            "clamped": bool(values) and clamped != value,
            "status": _status(scores, planned),
            "seeds_complete": len(complete),
            "seeds_planned": planned,
            "n_test": n_test,
            "imagenet_top1": self.imagenet_top1.get(backbone),
        }

    @property
    def frame(self) -> pd.DataFrame:
        """Tidy view, one row per backbone x dataset x regime x seed; columns as in scores.csv."""
        return pd.DataFrame([asdict(s) for s in self.scores], columns=list(SCORE_COLUMNS))

    @property
    def cells(self) -> pd.DataFrame:
        """Tidy view, one row per backbone x dataset x regime; columns ``CELL_COLUMNS``.

        ``status``: complete, partial (not all seeds that the backbone has in the regime), diverged, failed,
        missing, or "not planned" (neither asked for nor delivered). ``clamped``: the value was moved to have
        finite log odds.
        """
        return self._cells.copy()

    def matrix(self, regime: Regime, column: Literal["value", "log_odds"] = "log_odds") -> pd.DataFrame:
        """Return one regime as backbones (rows) x data sets (columns), NaN where there is no value."""
        part = self._cells[self._cells["regime"] == regime]
        wide = part.pivot_table(index="backbone", columns="dataset", values=column, dropna=False)
        return wide.reindex(index=list(self.backbones), columns=list(self.datasets)).astype(float)

    def in_regime(self, regime: Regime) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the backbones and the data sets with a planned or delivered cell of a regime."""
        part = self._cells[(self._cells["regime"] == regime) & (self._cells["status"] != "not planned")]
        backbones, datasets = set(part["backbone"]), set(part["dataset"])
        return tuple(b for b in self.backbones if b in backbones), tuple(
            d for d in self.datasets if d in datasets
        )

    def counts(self) -> dict[str, int]:
        """Return how many cells have each status, and how many are clamped."""
        statuses = self._cells["status"].value_counts()
        known = ("complete", "partial", "diverged", "failed", "missing", "not planned")
        counted = {status: int(statuses.get(status, 0)) for status in known}
        return {**counted, "clamped": int(self._cells["clamped"].sum())}


def _status(scores: list[Score], planned: int) -> CellStatus:
    """What became of a cell, from its seeds."""
    if not scores:
        return "not planned"
    seen = {s.status for s in scores}
    if "complete" in seen:
        return "complete" if seen == {"complete"} and len(scores) == planned else "partial"
    return next(cast(CellStatus, s) for s in ("diverged", "failed", "missing") if s in seen)
