"""Rows of scores that no job has computed."""

from __future__ import annotations

from typing import Any

from stages.records import Score


def made_score(regime: str, **fields: Any) -> Score:
    """Return a complete score of one network on one data set."""
    known: dict[str, Any] = {
        "study": "s", "backbone": "net", "weights": "pretrained", "variant": "", "dataset": "colours",
        "regime": regime, "metric": "top_1", "value": 0.5, "n_train": 10, "n_test": 10, "seed": 0, "steps": None,
        "imagenet_top1": None, "l2_lambda": None, "learning_rate": None, "weight_decay": None,
        "status": "complete", "source": "", "job": "",
    }  # fmt: skip
    return Score(**{**known, **fields})
