"""The join of the experiment with few examples: curves, where they cross, figure and sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.findings import NOTHING, Findings, PartRow, by_cell, strict_json, table_csv, title_of
from pipeline.tables_experiments import FewExamplesTable
from stages.analysis.crossings import Crossing, crossing
from stages.records import REGIMES, Regime

Floats = NDArray[np.float64]
Curves = dict[Regime, tuple[tuple[int, ...], Floats]]
"""Of each regime the numbers that every subset has, and log odds (subsets, numbers)."""
OVERTAKES: tuple[tuple[Regime, Regime], ...] = (
    ("fine_tune", "linear_probe"),
    ("from_scratch", "linear_probe"),
    ("from_scratch", "fine_tune"),
)
"""Who might come to lie above whom with more examples."""
_NAMES: Mapping[Regime, str] = {
    "linear_probe": "the linear probe",
    "fine_tune": "fine-tuning",
    "from_scratch": "training from scratch",
}
_RULES = {
    "full": "on all validation images, which grants the choice more labels than training has "
    "(the paper's habit, as far as is known)",
    "proportional": "on validation images in proportion to the training images",
}


def few_examples_findings(rows: Sequence[PartRow], table: FewExamplesTable, *, draw: bool) -> Findings:
    """Turn the scores of all subsets into files, a figure and sentences.

    Parameters
    ----------
    rows : sequence of PartRow
    table : FewExamplesTable
    draw : bool
        Whether figures can be drawn here.
    """
    if not rows:
        return NOTHING
    cells = {cell: _curves(regimes) for cell, regimes in by_cell(rows).items()}
    crossings = {cell: _crossings(curves) for cell, curves in cells.items()}
    content = {
        "seed": table.seed,
        "draw": table.draw,
        "validation": table.validation,
        "repeats": table.repeats,
        "cells": [_cell_json(cell, curves, crossings[cell]) for cell, curves in cells.items()],
    }
    lines = [line for cell in cells for line in _sentences(cell, crossings[cell], list(cells))]
    lines += [line for cell, curves in cells.items() for line in _alike(title_of(*cell, list(cells)), curves)]
    files = {
        "few_examples.csv": table_csv(rows, ("per_class", "repeat")),
        "few_examples.json": strict_json(content),
    }
    figures = _figures(cells, crossings, table, lines) if draw else ()
    return Findings(files, figures, tuple(lines))


def _curves(regimes: Mapping[str, Sequence[PartRow]]) -> Curves:
    """Return of each regime the numbers that every subset has, and log odds (subsets, numbers)."""
    found: Curves = {}
    for regime in REGIMES:
        values: dict[tuple[int, int], list[float | None]] = {}
        for row in regimes.get(regime, ()):
            place = (int(row.part.repeat or 0), int(row.part.per_class or 0))
            values.setdefault(place, []).append(row.log_odds)
        repeats = sorted({repeat for repeat, _ in values})
        whole = {place for place, odds in values.items() if None not in odds}
        numbers = tuple(
            n for n in sorted({n for _, n in values}) if all((repeat, n) in whole for repeat in repeats)
        )
        if numbers:
            curve = [
                [np.mean(np.array(values[repeat, n], dtype=float)) for n in numbers] for repeat in repeats
            ]
            found[regime] = (numbers, np.array(curve))
    return found


def _crossings(curves: Curves) -> dict[tuple[Regime, Regime], Crossing]:
    """Compare every two regimes on the numbers that both have."""
    found = {}
    for later, earlier in OVERTAKES:
        if later in curves and earlier in curves:
            (a, first), (b, second) = curves[later], curves[earlier]
            both = [n for n in a if n in b]
            if len(both) > 1 and len(first) == len(second):
                one = first[:, [a.index(n) for n in both]]
                other = second[:, [b.index(n) for n in both]]
                found[later, earlier] = crossing(np.array(both), one, other)
    return found


def _error(curve: Floats) -> Floats:
    """Return the standard error over subsets; NaN with one subset."""
    if len(curve) < 2:
        return np.full(curve.shape[1], np.nan)
    return np.asarray(curve.std(axis=0, ddof=1) / np.sqrt(len(curve)))


def _cell_json(
    cell: tuple[str, str],
    curves: Curves,
    crossings: Mapping[tuple[Regime, Regime], Crossing],
) -> dict[str, Any]:
    """Return the curves and crossings of one backbone on one data set."""
    return {
        "backbone": cell[0],
        "dataset": cell[1],
        "curves": {
            regime: {
                "per_class": list(numbers),
                "log_odds": curve.mean(axis=0).tolist(),
                "standard_error": _error(curve).tolist(),
                "subsets": curve.tolist(),
            }
            for regime, (numbers, curve) in curves.items()
        },
        "crossings": [
            {"above": later, "below": earlier, "examples_per_class": found}
            for (later, earlier), found in crossings.items()
        ],
    }


def _sentences(
    cell: tuple[str, str],
    crossings: Mapping[tuple[Regime, Regime], Crossing],
    every: Sequence[tuple[str, str]],
) -> list[str]:
    """Say of each two regimes whether and where one overtakes the other."""
    where = title_of(*cell, every)
    return [
        f"{where}: {_NAMES[later]} {_said(found, _NAMES[earlier])}"
        for (later, earlier), found in crossings.items()
    ]


def _alike(where: str, curves: Curves) -> Iterator[str]:
    """Say where the probe scores the same on every subset, which then has no spread to be shown."""
    numbers, curve = curves.get("linear_probe", ((), np.empty((0, 0))))
    if len(curve) > 1:
        same = [str(n) for n, odds in zip(numbers, curve.T, strict=True) if np.ptp(odds) == 0]
        if same:
            yield (
                f"{where}: at {', '.join(same)} examples a class the probe scores the same on every subset, as where "
                "they hold all training images: no error bar there says how much the draw matters"
            )


def _said(found: Crossing, other: str) -> str:
    """One crossing in words."""
    if found.verdict == "always above":
        return f"is above {other} at every number of examples"
    if found.verdict == "not above at the end":
        return f"is not above {other} at the most examples studied"
    low, high = ("beyond the range" if end is None else f"{end:.3g}" for end in found.interval)
    return f"overtakes {other} at {found.at:.3g} examples a class (over subsets {low} to {high})"


def _figures(
    cells: Mapping[tuple[str, str], Curves],
    crossings: Mapping[tuple[str, str], Mapping[tuple[Regime, Regime], Crossing]],
    table: FewExamplesTable,
    lines: Sequence[str],
) -> tuple[Any, ...]:
    """Draw small multiples, a panel for each backbone on each data set."""
    from stages.report.draw_experiments import CurvePanel, RegimeCurve, curves_figure

    panels = []
    for cell, curves in cells.items():
        drawn = tuple(
            RegimeCurve(regime, tuple(map(float, n)), tuple(c.mean(axis=0)), tuple(_error(c)))
            for regime, (n, c) in curves.items()
        )
        marks = tuple(found.at for found in crossings[cell].values() if found.at is not None)
        panels.append(CurvePanel(title_of(*cell, list(cells)), drawn, marks))
    caption = (
        f"Test score against training images a class, logarithmic and logit axes. Points: mean of the log odds over "
        f"{table.repeats} random subsets ({table.draw}, seed {table.seed}); bars: standard error over them. "
        f"Hyper-parameters are chosen {_RULES[table.validation]}; nothing is refitted on validation. Dotted: where "
        f"one regime overtakes another. {'. '.join(itertools.islice(lines, 12))}."
    )
    figure = curves_figure("few_examples", "Few examples", caption, panels, x_label="Training images a class")
    return (figure,) if figure else ()
