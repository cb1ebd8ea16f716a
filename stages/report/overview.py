"""The page's summarising tables: every correlation with its intervals, and the best backbone per data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.advice import others_in_words
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES

CORRELATION_HEADS = (
    "backbones",
    "r",
    "95 % interval (Fisher)",
    "95 % interval (bootstrap)",
    "Spearman",
    "Kendall",
    "r without one data set",
)


@dataclass(frozen=True)
class Line:
    """One line of a table: a name and texts."""

    name: str
    cells: tuple[str, ...]


def mean_correlations(statistics: Mapping[str, Any]) -> list[Line]:
    """Return one line per regime: the correlation with the mean over data sets."""
    return [_line(REGIME_NAMES[r], part["correlation"]) for r, part in statistics["regimes"].items()]


def single_correlations(table: TransferTable, statistics: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """Return the regimes, each with one line per data set that has a defined correlation."""
    found = []
    for regime in table.regimes:
        parts = statistics["regimes"][regime]["per_dataset"]
        lines = [_line(name, parts[name]) for name in table.datasets if parts[name]["verdict"] == "defined"]
        if lines:
            found.append((REGIME_NAMES[regime], lines))
    return found


def _line(name: str, correlation: Mapping[str, Any]) -> Line:
    """One correlation in text; where it is not shown, the words that stand for it."""
    models = str(correlation["models"])
    if correlation["verdict"] != "defined":
        return Line(
            name, (models, f"{correlation['verdict']}: {correlation['reason']}", "-", "-", "-", "-", "-")
        )
    boot = correlation["bootstrap"]
    rest = correlation.get("leave_one_dataset_out")
    return Line(
        name,
        (
            models,
            f"{correlation['pearson']:.2f}",
            _range(correlation["interval"]),
            _range(boot and boot["interval"]),
            f"{correlation['spearman']:.2f}",
            f"{correlation['kendall']:.2f}",
            _range(rest and rest["range"]),
        ),
    )


def _range(ends: Any) -> str:
    """Two numbers, or a dash."""
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "-"


def choices(table: TransferTable, statistics: Mapping[str, Any]) -> list[Line]:
    """Return, for the mean and each data set, the best backbone of every regime and what ties with it."""
    if len(table.backbones) < 2:
        return []
    values = {regime: table.matrix(regime, "value") for regime in table.regimes}
    parts = {regime: statistics["regimes"][regime] for regime in table.regimes}
    means = tuple(_best_mean(part) for part in parts.values())
    lines = [Line("mean over data sets", means)] if len(table.datasets) > 1 else []
    for name in table.datasets:
        single = (_best_single(parts[r]["per_dataset"][name], values[r][name]) for r in table.regimes)
        lines.append(Line(name, tuple(single)))
    return lines


def _best_mean(part: Mapping[str, Any]) -> str:
    """The best mean of a regime."""
    best = part["correlation"]["best"]
    if best is None:
        return "-"
    score = 100 * part["means"][best]["as_fraction"]
    standing = _standing(
        part["correlation"], len(part["means"]), "behind {} on common data sets", part["left_out"]
    )
    return f"{best} {score:.1f}{standing}"


def _best_single(part: Mapping[str, Any], values: Any) -> str:
    """The best backbone of a data set and regime."""
    best = part["best"]
    if best is None:
        return "-"
    standing = _standing(
        part, int(values.notna().sum()), "not tested against {}: the lowest seeds contradict the means"
    )
    return f"{best} {100 * values[best]:.1f}{standing}"


def _standing(part: Mapping[str, Any], models: int, ahead: str, left_out: Sequence[str] = ()) -> str:
    """Who cannot be told from the best, and whom nothing is said of, in brackets."""
    ties, untested, before = part["ties_with_best"], part["not_tested"], part["ahead_of_best"]
    notes = [ahead.format(_few(before))] if before else []
    if ties is None:
        notes.append("not tested")
    elif others := [name for name in ties if name != part["best"] and name not in before]:
        notes.insert(0, f"or {_few(others)}")
    elif models > len(ties) + len(untested):
        some = before or untested or left_out
        notes.insert(
            0, f"ahead of {others_in_words(models - len(ties) - len(untested)) if some else 'every other'}"
        )
    notes += [f"{len(untested)} not tested"] if untested and ties is not None else []
    notes += [f"{len(left_out)} left out for gaps"] if left_out else []
    seeds = part.get("tested_seeds")
    notes += [f"test of seed {', '.join(map(str, seeds))}"] if seeds else []
    return f" ({'; '.join(notes)})" if notes else ""


def _few(names: Sequence[str], most: int = 4) -> str:
    """Names in a row; beyond a handful, how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
