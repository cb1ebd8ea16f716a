"""The join of training settings: mean log odds of one network's checkpoints, setting after setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.findings import Findings, strict_json
from pipeline.mistakes_experiments import setting_of
from pipeline.tables_experiments import RegularisationTable
from stages.records import Regime
from stages.report.logodds import log_odds
from stages.sheets import csv_bytes

if TYPE_CHECKING:
    from stages.report import TransferTable

REGIMES: tuple[Regime, ...] = ("linear_probe", "fine_tune")
LEVEL = 0.95


@dataclass(frozen=True)
class SettingScore:
    """One network under one setting, over seeds of its pretraining."""

    network: str
    setting: str
    quantity: str
    """A regime (mean log odds over data sets), or "source" (log odds of the source accuracy)."""
    values: tuple[float, ...]
    """One a seed."""
    mean: float
    interval: tuple[float, float] | None
    """Of the mean over seeds, Student's t; None with one seed."""


def regularisation_findings(table: RegularisationTable, joined: TransferTable, *, draw: bool) -> Findings:
    """Compare the settings of every network that has several.

    Parameters
    ----------
    table : RegularisationTable
        The order of the settings.
    joined : TransferTable
        The study's scores; backbones without a variant of the table take no part.
    draw : bool
        Whether figures can be drawn here.
    """
    scores = _scores(table, joined)
    if not scores:
        wanted = ", ".join(table.variants)
        return Findings(
            {}, lines=(f"regularisation: no backbone has a score and one of the variants {wanted}",)
        )
    lines = list(_sentences(scores, table.variants[0]))
    files = {"regularisation.csv": _csv(scores), "regularisation.json": strict_json(scores)}
    return Findings(files, _figures(scores, table, joined, lines) if draw else (), tuple(lines))


def _scores(table: RegularisationTable, joined: TransferTable) -> list[SettingScore]:
    """Average over data sets, then over seeds; a checkpoint that lacks a data set is left out of its regime."""
    names = {
        score.backbone + (f"@{score.variant}" if score.variant else ""): score for score in joined.scores
    }
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for setting in table.variants:
        for label, score in names.items():
            if setting_of(score.variant, table.variants) != setting:
                continue
            for regime in REGIMES:
                if regime in joined.regimes:
                    row = joined.matrix(regime).loc[label].to_numpy(dtype=float)
                    if np.isfinite(row).all():
                        values[score.backbone, setting, regime].append(float(row.mean()))
            if score.imagenet_top1 is not None:
                values[score.backbone, setting, "source"].append(float(log_odds(score.imagenet_top1)))
    found = []
    for (network, setting, quantity), each in values.items():
        mean, interval = float(np.mean(each)), _interval(each)
        found.append(SettingScore(network, setting, quantity, tuple(each), mean, interval))
    return found


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's interval of a mean."""
    from scipy import stats

    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _sentences(scores: Sequence[SettingScore], base: str) -> Any:
    """Say of each network and quantity how the best setting stands to the first."""
    groups: dict[tuple[str, str], list[SettingScore]] = defaultdict(list)
    for score in scores:
        groups[score.network, score.quantity].append(score)
    names = {"linear_probe": "linear probe", "fine_tune": "fine-tuned", "source": "source accuracy"}
    for (network, quantity), found in groups.items():
        first = next((score for score in found if score.setting == base), None)
        if first is None or len(found) < 2:
            continue
        told = ", ".join(
            f"{s.setting} {s.mean - first.mean:+.3f}{_spread(s)}" for s in found if s is not first
        )
        yield (
            f"{network}, {names[quantity]}: log odds {first.mean:.3f}{_spread(first)} with {base}; against it {told}"
        )


def _spread(score: SettingScore) -> str:
    """Return half the width of the interval, nothing where there is none."""
    if score.interval is None:
        return ""
    return f" (95 % of the mean +- {(score.interval[1] - score.interval[0]) / 2:.3f})"


def _csv(scores: Sequence[SettingScore]) -> bytes:
    """Write one row for each network, setting, quantity and seed."""
    rows = (
        [score.network, score.setting, score.quantity, i, value]
        for score in scores
        for i, value in enumerate(score.values)
    )
    return csv_bytes(["network", "setting", "quantity", "checkpoint", "log_odds"], rows)


def _figures(
    scores: Sequence[SettingScore], table: RegularisationTable, joined: TransferTable, lines: Sequence[str]
) -> tuple[Any, ...]:
    """Draw the settings in order: probe, fine-tuned, source accuracy."""
    from stages.report.draw_settings import SettingPoint, settings_figure

    points = [
        SettingPoint(s.network, table.variants.index(s.setting), s.quantity, s.mean, s.interval)
        for s in scores
    ]
    caption = (
        f"Mean log odds over {len(joined.datasets)} data sets of one network's checkpoints under several settings of "
        "its training, in order; bars: 95 % intervals of the mean over seeds of that training (Student's t), which "
        f"say nothing of other data sets. Right: accuracy on the source task. {'. '.join(lines)}."
    )
    figure = settings_figure("regularisation", "Training settings", caption, points, table.variants)
    return (figure,) if figure else ()
