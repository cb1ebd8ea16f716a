"""The tables of the page as plain rows: the template only writes them down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stages.records import Regime
from stages.report.table import TransferTable, label_of
from stages.report.text import REGIME_NAMES, cell_text

_SHADES = 5
_KEYS = ("backbone", "dataset", "regime", "seed")


@dataclass(frozen=True)
class Entry:
    """One table cell."""

    text: str
    sort: str
    """What sorting compares; empty = last."""
    kind: str = ""
    """CSS class of the column."""
    shade: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """One table row."""

    index: int
    """Of the backbone in the table."""
    name: str
    cells: tuple[Entry, ...]
    regime: str = ""
    status: str = ""
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Matrix:
    """Backbones x data sets of one regime."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


COLUMNS: tuple[tuple[str, str], ...] = (
    ("backbone", ""),
    ("data set", ""),
    ("regime", ""),
    ("metric", ""),
    ("score %", "num"),
    ("status", ""),
    ("seed", "num"),
    ("train", "num"),
    ("test", "num"),
    ("lambda", "num"),
    ("learning rate", "num"),
    ("weight decay", "num"),
    ("steps", "num"),
    ("ImageNet %", "num"),
    ("source", ""),
)
"""Of the table of every score: heading and CSS class."""


def matrices(table: TransferTable, statistics: Mapping[str, Any]) -> list[Matrix]:
    """Return the score matrix of every regime, with ImageNet top-1 and the mean in front."""
    return [_matrix(table, statistics, regime) for regime in table.regimes]


def _matrix(table: TransferTable, statistics: Mapping[str, Any], regime: Regime) -> Matrix:
    """One regime: its backbones and data sets, those that nobody planned there left out."""
    wide = table.matrix(regime)
    backbones, datasets = table.in_regime(regime)
    spread = (wide - wide.mean(axis=0)).to_numpy()
    finite = np.abs(spread[np.isfinite(spread)])
    limit = max(float(finite.max()), 0.05) if finite.size else 1.0
    cells = table.cells
    found = {
        (cell["backbone"], cell["dataset"]): cell
        for cell in cells[cells["regime"] == regime].to_dict("records")
    }
    part = statistics["regimes"][regime]
    means, singles = part["means"], part["per_dataset"]
    rows = []
    for i, name in enumerate(table.backbones):
        if name not in backbones:
            continue
        middle = [
            _score_entry(found[name, dataset], spread[i, j] / limit, singles[dataset])
            for j, dataset in enumerate(table.datasets)
            if dataset in datasets
        ]
        top1 = _percent(table.imagenet_top1[name])
        rows.append(Row(i, name, (top1, _mean_entry(means.get(name)), *middle)))
    return Matrix(REGIME_NAMES[regime], ("ImageNet", "mean", *datasets), tuple(rows))


def _score_entry(cell: Mapping[Any, Any], shade: float, single: Mapping[str, Any]) -> Entry:
    """One score, shaded by how far it lies from the data set's mean."""
    text = cell_text(cell["value"], cell["status"], cell["clamped"])
    if not math.isfinite(cell["value"]):
        return Entry(text, "", shade="none")
    step = max(-_SHADES, min(_SHADES, round(shade * _SHADES)))
    hint = f"{cell['backbone']}, {cell['dataset']}: log odds {cell['log_odds']:.3f}, {cell['metric']}"
    best = cell["backbone"] == single["best"]
    tied = not best and cell["backbone"] in (single["ties_with_best"] or ())
    classes = f"h{step}{' best' if best else ''}{' tied' if tied else ''}"
    standing = ", not significantly different from the best" if tied else ""
    if cell["backbone"] in single["ahead_of_best"]:
        standing = ", ahead of the best on the tested seeds"
    standing = ", the best" if best else standing
    return Entry(text, repr(float(cell["value"])), shade=classes, hint=hint + standing)


def _mean_entry(mean: Mapping[str, Any] | None) -> Entry:
    """The mean over data sets, with its bar in log odds as a hint."""
    if mean is None:
        return Entry("-", "", shade="none", hint="no mean: a score is missing")
    bar = "bar not defined" if mean["bar"] is None else f"bar {mean['bar']:.3f}"
    hint = f"mean log odds {mean['mean_log_odds']:.3f}, {bar}"
    return Entry(f"{100 * mean['as_fraction']:.1f}", repr(mean["mean_log_odds"]), hint=hint)


def score_rows(table: TransferTable, details: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return one row per backbone x data set x regime x seed, with what the caller knows about each.

    A detail belongs to the row of its backbone, dataset and regime, and of its seed where it has one.
    """
    known: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for detail in details:
        known.setdefault(tuple(detail.get(key) for key in _KEYS[:3]), []).append(detail)
    rows = []
    for score in table.scores:
        label = label_of(score)
        kin = known.get((label, score.dataset, score.regime), [])
        mine = [d for d in kin if d.get("seed") in (None, score.seed)]
        rows.append(
            Row(
                index=table.backbones.index(label),
                name=label,
                regime=score.regime,
                status=score.status,
                cells=(
                    _word(label),
                    _word(score.dataset),
                    _word(REGIME_NAMES[score.regime]),
                    _word(score.metric),
                    _percent(score.value, digits=2),
                    _word(score.status),
                    *(_figure(v) for v in (score.seed, score.n_train, score.n_test)),
                    *(_figure(v) for v in (score.l2_lambda, score.learning_rate, score.weight_decay)),
                    _figure(score.steps),
                    _percent(score.imagenet_top1),
                    _word(score.source),
                ),
                details=tuple(pair for detail in mine for pair in _pairs(detail)),
            )
        )
    return rows


def filled(rows: list[Row]) -> tuple[list[tuple[str, str]], list[Row]]:
    """Return headings and rows without the columns in which nothing stands."""
    kept = [i for i in range(len(COLUMNS)) if any(row.cells[i].text for row in rows)]
    return [COLUMNS[i] for i in kept], [replace(row, cells=tuple(row.cells[i] for i in kept)) for row in rows]


def _pairs(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a detail says beyond which row it belongs to."""
    return [
        (key, readable(value))
        for key, value in detail.items()
        if key not in _KEYS and value not in (None, "", [], ())
    ]


def readable(value: object) -> str:
    """Return a value as people read it: six digits, lists with semicolons."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(readable(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {readable(item)}" for key, item in value.items()) or "none"
    return str(value)


def _word(text: str) -> Entry:
    """A name."""
    return Entry(text, text)


def _figure(value: float | None) -> Entry:
    """A number in its shortest form."""
    return Entry("", "", "num") if value is None else Entry(f"{value:.4g}", repr(value), "num")


def _percent(value: float | None, digits: int = 1) -> Entry:
    """A fraction in percent."""
    if value is None:
        return Entry("?" if digits == 1 else "", "", "num")
    return Entry(f"{100 * value:.{digits}f}", repr(float(value)), "num")


def comparison_rows(table: TransferTable, statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the regime comparisons as the page shows them."""
    return [_comparison(table, c) for c in statistics["regime_comparisons"] if c["mean"] is not None]


def _comparison(table: TransferTable, c: Mapping[str, Any]) -> dict[str, Any]:
    """One comparison."""
    per = [c["per_dataset"].get(name) for name in table.datasets]
    return {
        "name": f"{REGIME_NAMES[c['first']]} - {REGIME_NAMES[c['second']]}",
        "mean": f"{c['mean']:+.2f}",
        "interval": _bounds(c["interval"]),
        "odds": f"x {c['odds_ratio']:.2f}",
        "wins": f"{c['wins']} of {c['cells']}",
        "per_dataset": ["-" if value is None else f"{value:+.2f}" for value in per],
    }


def _bounds(interval: Sequence[float] | None) -> str:
    """An interval of log odds, or that there is none."""
    return "not defined" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
