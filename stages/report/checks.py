"""What rows may not say, alone and beside each other; every refusal names the sources."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real

from stages.errors import JoinError
from stages.names import UNSHOWN
from stages.records import METRICS, REGIMES, Metric, Regime, Score
from stages.report.logodds import floor_of
from stages.report.table import TransferTable, label_of

Cell = tuple[str, str, Regime, int | None]
"""(backbone label, data set, regime, seed)."""

STATUSES = ("complete", "diverged", "failed", "missing")
"""From the one that counts most to the one that counts least."""

_UNSHOWN = re.compile(rf"[{UNSHOWN}\ud800-\udfff]")
"""What names may not hold, and halves of characters that no file can hold."""
_LARGEST = 10**15
"""Of counts: nobody has more, and with 1 / n below a float's precision the log odds of 1 would be infinite."""
_TEXTS = ("study", "backbone", "weights", "variant", "dataset", "regime", "metric", "status", "source", "job")
_WHOLE = ("n_train", "n_test", "seed", "steps")
_POSITIVE = ("l2_lambda", "learning_rate")
_REAL = ("value", "imagenet_top1", *_POSITIVE, "weight_decay")

_COMPARED = ("metric", "value", "n_train", "n_test", "steps", "l2_lambda", "learning_rate", "weight_decay")


def where(row: Score) -> str:
    """A row's cell and source, for messages."""
    seed = "" if row.seed is None else f", seed {row.seed}"
    return _shown(f"{label_of(row)} / {row.dataset} / {row.regime}{seed} ({row.source or 'no source'})")


def _shown(text: str) -> str:
    """Text on one line, whatever is in it."""
    return repr(text) if _UNSHOWN.search(text) else text


def checked_row(row: Score) -> Score:
    """The row itself, once it makes sense on its own."""
    problem = next(iter([*_wrong_kinds(row)] or _problems(row)), None)
    if problem:
        raise JoinError(f"{where(row)}: {problem}")
    return row


def _wrong_kinds(row: Score) -> Iterator[str]:
    """Fields that are of another kind than the record says."""
    for name in _TEXTS:
        if not isinstance(getattr(row, name), str):
            yield f"{name} is {getattr(row, name)!r}: it must be text"
    for kind, names, word in ((Integral, _WHOLE, "a whole number"), (Real, _REAL, "a number")):
        for name in names:
            value = getattr(row, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                yield f"{name} is {value!r}: it must be {word}, or nothing"


def _problems(row: Score) -> Iterator[str]:
    """Everything that is wrong with a row on its own."""
    if not row.backbone or not row.dataset:
        yield "backbone and dataset must not be empty: name them"
    for name in _TEXTS:
        if _UNSHOWN.search(getattr(row, name)):
            yield f"{name} is {getattr(row, name)!r}: it must hold no control characters or line breaks"
    if row.regime not in REGIMES:
        yield f"regime is {row.regime!r}: use one of {', '.join(REGIMES)}"
    if row.metric not in METRICS:
        yield f"metric is {row.metric!r}: use one of {', '.join(METRICS)}"
    if row.status not in STATUSES:
        yield f"status is {row.status!r}: use one of {', '.join(STATUSES)}"
    if (row.value is None) == (row.status == "complete"):
        yield f"status {row.status!r} contradicts value {row.value}: complete rows have a value, others none"
    if row.value is not None and not (math.isfinite(row.value) and 0 <= row.value <= 1):
        yield f"value is {row.value}: give a fraction in [0, 1], not percent"
    if row.imagenet_top1 is not None and not 0 < row.imagenet_top1 < 1:
        yield f"imagenet_top1 is {row.imagenet_top1}: give a fraction between 0 and 1, or nothing"
    if row.n_test is not None and row.n_test < 1:
        yield f"n_test is {row.n_test}: a score needs at least one test row"
    yield from _impossible_settings(row)


def _impossible_settings(row: Score) -> Iterator[str]:
    """Counts below zero, and hyper-parameters that no job can have had."""
    for name in ("n_train", "steps"):
        value = getattr(row, name)
        if value is not None and value < 0:
            yield f"{name} is {value}: it cannot be negative"
    for name in ("n_train", "n_test", "steps"):
        if (getattr(row, name) or 0) > _LARGEST:
            yield f"{name} is {getattr(row, name)}: nobody has so many, correct it"
    if row.seed is not None and abs(row.seed) >= 2**63:
        yield f"seed is {row.seed}: it must fit into 64 bits"
    for name in _POSITIVE:
        value = getattr(row, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            yield f"{name} is {value}: give a positive number, or nothing"
    if row.weight_decay is not None and not (math.isfinite(row.weight_decay) and row.weight_decay >= 0):
        yield f"weight_decay is {row.weight_decay}: give a number from 0 on, or nothing"


def checked_cell(cell: Cell) -> Cell:
    """A planned cell, once its regime is known."""
    if cell[2] not in REGIMES:
        raise JoinError(f"planned cell {cell}: regime is {cell[2]!r}: use one of {', '.join(REGIMES)}")
    return cell


def merged(old: Score, new: Score) -> Score:
    """One row for two of the same cell; JoinError where both are complete and disagree."""
    if old.status != "complete" or new.status != "complete":
        return min(old, new, key=lambda row: STATUSES.index(row.status))
    for name in _COMPARED:
        left, right = getattr(old, name), getattr(new, name)
        if left is not None and right is not None and left != right:
            cell = f"{label_of(old)} / {old.dataset} / {old.regime}"
            raise _contradiction(cell, name, old, new, "remove one, or give one of them a variant")
    return old


def _contradiction(what: str, name: str, old: Score, new: Score, remedy: str) -> JoinError:
    """The error of two rows that say different things, with the sources of both."""
    left = f"{getattr(old, name)} in {old.source or old.job or 'one row'}"
    right = f"{getattr(new, name)} in {new.source or new.job or 'another'}"
    return JoinError(f"{what}: {name} is {left} and {right}: {remedy}")


def one_word(rows: list[Score], name: str) -> dict[str, object]:
    """The one value that each backbone's rows agree on; rows that say nothing are no contradiction."""
    said: dict[str, Score] = {}
    for row in rows:
        value = getattr(row, name)
        if value is None or value == "":
            continue
        first = said.setdefault(label_of(row), row)
        if getattr(first, name) != value:
            raise _contradiction(
                label_of(row), name, first, row, "correct one, or give one of them a variant"
            )
    return {label: getattr(row, name) for label, row in said.items()}


def refuse_lookalikes(rows: Iterable[Score]) -> None:
    """Refuse two names that people and tables would take for one.

    Those are the same letters in two of Unicode's ways to write them, and ``a@x`` beside the variant x of a.
    """
    said: dict[tuple[str, str], tuple[str, Score]] = {}
    for row in rows:
        variant = f" with the variant {row.variant!a}" if row.variant else ""
        ways = (
            ("backbone", label_of(row), f"{row.backbone!a}{variant}"),
            ("dataset", row.dataset, ascii(row.dataset)),
        )
        for kind, shown, way in ways:
            known, other = said.setdefault((kind, unicodedata.normalize("NFC", shown)), (way, row))
            if way != known:
                left, right = (one.source or one.job or "one row" for one in (other, row))
                raise JoinError(
                    f"{kind} {known} ({left}) and {way} ({right}) look alike: write it in one way"
                )


def metrics_of(rows: list[Score], stated: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metric of each data set, from the rows and the study; JoinError where they differ."""
    said: dict[str, Score] = {}
    for row in rows:
        first = said.setdefault(row.dataset, row)
        if first.metric != row.metric:
            raise _contradiction(
                row.dataset, "metric", first, row, "their values cannot be compared, remove one"
            )
        if stated.get(row.dataset, row.metric) != row.metric:
            raise JoinError(
                f"{where(row)}: metric is {row.metric}, but the study says {stated[row.dataset]}: "
                "run the job again, or correct the study"
            )
    return {**stated, **{dataset: row.metric for dataset, row in said.items()}}


def refuse_mixed_seeds(rows: list[Score]) -> None:
    """A row without a seed beside rows with one may be the same run: nobody can tell, so nobody averages."""
    first: dict[tuple[str, str, str], Score] = {}
    for row in (r for r in rows if r.status == "complete"):
        other = first.setdefault((label_of(row), row.dataset, row.regime), row)
        if (other.seed is None) != (row.seed is None):
            raise JoinError(
                f"{where(other)} and {where(row)}: one has a seed, the other none, so they may be the same "
                "run twice: give both a seed, or one a variant"
            )


def refuse_infinite(table: TransferTable) -> None:
    """A value of 0 or 1 has log odds only where something is known about the size of the test set."""
    for row in table.scores:
        floor = floor_of(row.metric, row.n_test, table.test_counts.get(row.dataset))
        if row.value in (0.0, 1.0) and floor is None:
            raise JoinError(
                f"{where(row)}: value is {row.value} without n_test: add n_test, its log odds need it"
            )
