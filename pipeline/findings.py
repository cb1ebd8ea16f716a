"""What the other experiments found, as files, figures and sentences beside the study's own report."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from pipeline.jobs import Part
from stages.records import Score
from stages.report.logodds import clamp, floor_of, log_odds
from stages.sheets import csv_bytes

if TYPE_CHECKING:
    from pipeline.ledger import Record
    from stages.report.draw_experiments import ExtraFigure

COLUMNS = (
    "study", "backbone", "weights", "variant", "dataset", "regime", "metric", "value", "log_odds", "n_train",
    "n_test", "seed", "steps", "l2_lambda", "learning_rate", "weight_decay", "status", "source", "job",
)  # fmt: skip
"""Of the experiments' own tables, behind what tells their rows apart."""


@dataclass(frozen=True)
class PartRow:
    """One score of another experiment."""

    part: Part
    score: Score
    """The metric on test; the value is None where the job is not done."""
    record: Record | None
    log_odds: float | None
    """Clamped as the study's own (protocol, "Statistics")."""


@dataclass(frozen=True)
class Findings:
    """What came of some experiments."""

    files: Mapping[str, bytes]
    """By name in the output folder."""
    figures: tuple[ExtraFigure, ...] = ()
    lines: tuple[str, ...] = ()
    """Sentences for people."""

    def __or__(self, other: Findings) -> Findings:
        return Findings({**self.files, **other.files}, self.figures + other.figures, self.lines + other.lines)


NOTHING = Findings({})


def part_row(part: Part, score: Score, record: Record | None, counts: Sequence[int] | None) -> PartRow:
    """Put a row together.

    Parameters
    ----------
    counts : sequence of int or None
        Test rows (multi-label: positives) of each class.
    """
    odds = None
    if score.value is not None:
        odds = float(log_odds(clamp(score.value, floor_of(score.metric, score.n_test, counts))))
    return PartRow(part, score, record, odds)


def label(row: PartRow) -> str:
    """Return the backbone's label."""
    return f"{row.score.backbone}@{row.score.variant}" if row.score.variant else row.score.backbone


def by_cell(rows: Sequence[PartRow]) -> dict[tuple[str, str], dict[str, list[PartRow]]]:
    """Sort rows by (backbone, data set), then by regime."""
    found: dict[tuple[str, str], dict[str, list[PartRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[label(row), row.score.dataset][row.score.regime].append(row)
    return found


def title_of(backbone: str, dataset: str, every: Sequence[tuple[str, str]]) -> str:
    """Name a panel: the data set, with the backbone where there are several."""
    return dataset if len({name for name, _ in every}) == 1 else f"{dataset}, {backbone}"


def table_csv(rows: Sequence[PartRow], axes: Sequence[str]) -> bytes:
    """Write rows as csv; ``axes`` are the fields of `Part` that tell them apart."""
    names = [*axes, *(name for name in COLUMNS if name not in axes)]
    return csv_bytes(names, (_fields(row, names, axes) for row in rows))


def _fields(row: PartRow, names: Sequence[str], axes: Sequence[str]) -> list[Any]:
    """Return a row's fields in the order of ``names``."""
    known = {**asdict(row.score), "log_odds": row.log_odds}
    known |= {name: getattr(row.part, name) for name in axes}
    return [known[name] for name in names]


def strict_json(value: Any) -> bytes:
    """Write records as JSON; what is not finite becomes null."""
    return (json.dumps(_plain(value), indent=1, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """Return JSON's own kinds."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
