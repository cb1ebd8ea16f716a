"""What a training budget means, per regime: the numbers behind ``budget = "tiny" | "quick" | "paper"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.tables import Budget, TrainTable
from stages.records import TrainRecipe


def _log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(float(f"{v:.6g}") for v in np.geomspace(low, high, count))


BUDGETS: Mapping[str, Mapping[Budget, Mapping[str, Any]]] = {
    "fine_tune": {
        "tiny": {"steps": 30, "batch_size": 32, "learning_rates": (0.01,), "weight_decays": (0.0,)},
        "quick": {
            "steps": 500,
            "batch_size": 64,
            "learning_rates": (1e-3, 1e-2, 1e-1),
            "weight_decays": (0.0, 1e-4),
        },
        # Protocol, "Fine-tuning": 20,000 steps, 7 rates 1e-4 ... 1e-1, 7 decays 1e-6 ... 1e-3 and none.
        "paper": {
            "steps": 20_000,
            "batch_size": 256,
            "learning_rates": _log_spaced(1e-4, 1e-1, 7),
            "weight_decays": (0.0, *_log_spaced(1e-6, 1e-3, 7)),
        },
    },
    "from_scratch": {
        "tiny": {"steps": 30, "batch_size": 32, "learning_rates": (0.1,), "weight_decays": (0.0,)},
        "quick": {
            "steps": 1000,
            "batch_size": 64,
            "learning_rates": (1e-2, 1e-1),
            "weight_decays": (0.0, 1e-3),
        },
        # Protocol, "From scratch": SimCLR's grid (appendix B.8), named as such.
        "paper": {
            "steps": 40_000,
            "batch_size": 256,
            "learning_rates": _log_spaced(1e-3, 1.0, 7),
            "weight_decays": _log_spaced(1e-5, 10**-1.5, 8),
        },
    },
}
"""What a budget means, per regime."""

RECIPE_FIELDS = (
    "steps batch_size micro_batch_size momentum batch_norm_momentum decay_everything dropout label_smoothing "
    "classifier_std image_size evaluation_crop crop_scale crop_ratio horizontal_flip validation_curve "
    "precision compile device num_workers image_memory tensorboard"
).split()


def grid_of(table: TrainTable, regime: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the learning rates and weight decays of a training table, budget filled in."""
    budget = BUDGETS[regime][table.budget]
    return table.learning_rates or budget["learning_rates"], table.weight_decays or budget["weight_decays"]


def recipe_of(table: TrainTable, regime: str) -> TrainRecipe:
    """Return what a training job does, budget filled in."""
    values = {name: getattr(table, name) for name in RECIPE_FIELDS}
    for name in ("steps", "batch_size"):
        values[name] = values[name] or BUDGETS[regime][table.budget][name]
    return TrainRecipe(**values)
