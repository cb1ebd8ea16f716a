"""Made-up rows, whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from stages.records import REGIMES, Regime, Score
from stages.report import TransferTable, join_scores
from stages.report.figures import render_figures
from stages.report.statistics import statistics

MakeRow = Callable[..., Score]
MakeStudy = Callable[..., list[Score]]


def _row(**changes: object) -> Score:
    fields: dict[str, object] = {
        "study": "made-up",
        "backbone": "net_a",
        "weights": "pretrained",
        "variant": "",
        "dataset": "pets",
        "regime": "linear_probe",
        "metric": "top_1",
        "value": 0.8,
        "n_train": 400,
        "n_test": 200,
        "seed": None,
        "steps": None,
        "imagenet_top1": 0.75,
        "l2_lambda": 1.0,
        "learning_rate": None,
        "weight_decay": None,
        "status": "complete",
        "source": "results/a.json",
        "job": "probe-a",
    }
    return Score(**{**fields, **changes})  # type: ignore[arg-type]


def _study(
    models: int = 4,
    datasets: int = 3,
    regimes: Sequence[Regime] = REGIMES,
    seed: int = 0,
    names: Sequence[str] | None = None,
    dataset_names: Sequence[str] | None = None,
) -> list[Score]:
    rng = np.random.default_rng(seed)
    names = names or [f"net_{m:02d}" for m in range(models)]
    dataset_names = dataset_names or [f"set_{d:02d}" for d in range(datasets)]
    top1 = np.linspace(0.70, 0.82, len(names))
    level = rng.normal(1.0, 0.8, len(dataset_names))
    rows = []
    for shift, regime in zip((0.0, 0.7, -0.5), regimes, strict=False):
        for name, known in zip(names, top1, strict=True):
            own = rng.normal(0, 0.15)
            for place, dataset in enumerate(dataset_names):
                x = level[place] + shift + 1.4 * np.log(known / (1 - known)) - 1.6 + own + rng.normal(0, 0.1)
                rows.append(
                    _row(
                        backbone=name,
                        dataset=dataset,
                        regime=regime,
                        value=round(float(1 / (1 + np.exp(-x))), 4),
                        imagenet_top1=float(known),
                        n_test=2000,
                        source=f"results/{regime}/{name}-{dataset}.json",
                    )
                )
    return rows


@pytest.fixture(scope="session")
def make_row() -> MakeRow:
    """One row, with the fields that matter changed."""
    return _row


@pytest.fixture(scope="session")
def make_study() -> MakeStudy:
    """Every row of a complete study."""
    return _study


class Drawn(NamedTuple):
    """A joined study with everything that was drawn of it."""

    table: TransferTable
    found: dict[str, Any]
    figures: dict[str, bytes]


@pytest.fixture(scope="session")
def drawn(make_study: MakeStudy) -> Drawn:
    """Three backbones on three data sets in three regimes, one cell missing; drawn once, figures are slow."""
    table = join_scores(make_study(3, 3)[:-1])
    found = statistics(table)
    return Drawn(table, found, render_figures(table, found))
