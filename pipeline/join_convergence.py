"""The join of the comparison of schedule lengths: who comes near its best after how many steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.budgets import recipe_of
from pipeline.config import Study
from pipeline.findings import NOTHING, Findings, PartRow, by_cell, strict_json, table_csv, title_of
from stages.analysis.convergence import MeanReached, Reached, SpeedUp, mean_reached, reached, speed_up
from stages.records import Regime

TRAININGS: tuple[Regime, ...] = ("fine_tune", "from_scratch")
_NAMES: Mapping[Regime, str] = {"fine_tune": "fine-tuning", "from_scratch": "training from scratch"}


@dataclass(frozen=True)
class _Curve:
    """One regime of one backbone on one data set: log odds by length, mean over seeds."""

    steps: tuple[int, ...]
    log_odds: tuple[float, ...]
    error: tuple[float, ...]
    """Standard error over seeds; NaN with one."""
    reached: Reached | None
    """None with less than two lengths that are done."""


Cell = tuple[str, str]


def convergence_findings(rows: Sequence[PartRow], study: Study, *, draw: bool) -> Findings:
    """Turn the scores of all lengths into files, a figure and sentences.

    Parameters
    ----------
    rows : sequence of PartRow
    study : Study
        Its training tables know the batch size, for epochs.
    draw : bool
        Whether figures can be drawn here.
    """
    if not rows:
        return NOTHING
    curves = {
        cell: {regime: _curve(regimes[regime], study, regime) for regime in TRAININGS if regime in regimes}
        for cell, regimes in by_cell(rows).items()
    }
    backbones = list(dict.fromkeys(name for name, _ in curves))
    means = {name: {regime: _mean(curves, name, regime) for regime in TRAININGS} for name in backbones}
    ratios = {name: _ratio(curves, name) for name in backbones}
    content = {
        "threshold": "the regime's own maximum of log odds + ln 0.9",
        "cells": [
            {"backbone": cell[0], "dataset": cell[1], "regime": regime, "curve": curve}
            for cell, regimes in curves.items()
            for regime, curve in regimes.items()
        ],
        "means": means,
        "speed_up": ratios,
    }
    lines = [line for name in backbones for line in _sentences(name, means[name], ratios[name])]
    files = {"convergence.csv": table_csv(rows, ("steps",)), "convergence.json": strict_json(content)}
    return Findings(files, _figures(curves, lines) if draw else (), tuple(lines))


def _curve(rows: Sequence[PartRow], study: Study, regime: Regime) -> _Curve:
    """Average over seeds; a length of which a seed lacks is left out."""
    values: dict[int, list[float | None]] = {}
    for row in rows:
        values.setdefault(int(row.part.steps or 0), []).append(row.log_odds)
    whole = {steps: np.array(odds, dtype=float) for steps, odds in values.items() if None not in odds}
    steps = tuple(sorted(whole))
    odds = tuple(float(whole[s].mean()) for s in steps)
    error = tuple(
        float(whole[s].std(ddof=1) / np.sqrt(len(whole[s]))) if len(whole[s]) > 1 else float("nan")
        for s in steps
    )
    table = study.training(regime)
    assert table is not None
    n_train = next((row.score.n_train for row in rows if row.score.n_train), None)
    batch = recipe_of(table, regime).batch_size
    found = reached(steps, odds, batch_size=batch, n_train=n_train) if len(steps) > 1 else None
    return _Curve(steps, odds, error, found)


def _reached(curves: Mapping[Cell, Mapping[Regime, _Curve]], name: str, regime: Regime) -> dict[str, Reached]:
    """Return what one backbone reached, by data set."""
    found = {
        dataset: regimes[regime].reached
        for (backbone, dataset), regimes in curves.items()
        if backbone == name and regime in regimes
    }
    return {dataset: one for dataset, one in found.items() if one is not None}


def _mean(curves: Mapping[Cell, Mapping[Regime, _Curve]], name: str, regime: Regime) -> MeanReached | None:
    """Average over the data sets of one backbone."""
    found = _reached(curves, name, regime)
    return mean_reached(list(found.values())) if found else None


def _ratio(curves: Mapping[Cell, Mapping[Regime, _Curve]], name: str) -> SpeedUp | None:
    """Compare both regimes of one backbone."""
    fast, slow = (_reached(curves, name, regime) for regime in TRAININGS)
    return speed_up(fast, slow) if set(fast) & set(slow) else None


def _sentences(name: str, means: Mapping[Regime, MeanReached | None], ratio: SpeedUp | None) -> list[str]:
    """Say how long each regime takes, and how many times as long one is."""
    lines = []
    for regime, mean in means.items():
        if mean is None:
            continue
        least = "at least " if mean.censored else ""
        epochs = f" ({mean.epochs:.3g} epochs)" if mean.epochs is not None else ""
        censored = f"; {mean.censored} still rising at the longest" if mean.censored else ""
        lines.append(
            f"{name}: {_NAMES[regime]} comes within 90 % of its best odds after {least}{mean.steps:.4g} steps"
            f"{epochs}, mean of {mean.datasets} data set{'s' * (mean.datasets > 1)}{censored}; interpolated "
            f"{mean.interpolated:.4g}"
        )
    if ratio is not None:
        lines.append(f"{name}: {_ratio_words(ratio)}")
    return lines


def _ratio_words(ratio: SpeedUp) -> str:
    """Say how many times as many steps one regime takes, as far as the longest schedules allow."""
    if ratio.slow.censored and ratio.fast.censored:
        return "how many times as many steps scratch takes is not known: both still rise at their longest"
    bound = "at least " if ratio.slow.censored else "at most " if ratio.fast.censored else ""
    return f"from scratch takes {bound}{ratio.ratio_of_means:.3g} times as many steps as fine-tuning"


def _figures(curves: Mapping[Cell, Mapping[Regime, _Curve]], lines: Sequence[str]) -> tuple[Any, ...]:
    """Draw small multiples, a panel for each backbone on each data set."""
    from stages.report.draw_experiments import CurvePanel, RegimeCurve, curves_figure

    panels = [
        CurvePanel(
            title_of(*cell, list(curves)),
            tuple(
                RegimeCurve(
                    regime,
                    tuple(map(float, curve.steps)),
                    curve.log_odds,
                    curve.error,
                    curve.reached.steps if curve.reached else None,
                )
                for regime, curve in regimes.items()
            ),
        )
        for cell, regimes in curves.items()
    ]
    caption = (
        "Test score against the length of the schedule: every point is an independent search and training that ends "
        "there. Dotted: the first length within ln 0.9 of the regime's own best log odds; where the best is the "
        f"longest, a longer one might do better. {'. '.join(lines[:12])}."
    )
    figure = curves_figure("convergence", "Convergence", caption, panels, x_label="Steps of the schedule")
    return (figure,) if figure else ()
