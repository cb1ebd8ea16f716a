"""The joined table as bytes for disk, and rows that others made as scores."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stages.errors import JoinError, MissingExtraError
from stages.records import Score
from stages.report.table import SCORE_COLUMNS, TransferTable
from stages.sheets import FORMULA, read_csv, unguarded

_INTEGERS = ("n_train", "n_test", "seed", "steps")
_FLOATS = ("value", "imagenet_top1", "l2_lambda", "learning_rate", "weight_decay")
_REQUIRED = ("backbone", "dataset", "regime", "metric", "value")


def typed_frame(table: TransferTable) -> pd.DataFrame:
    """Return the tidy rows with integers that may be missing as Int64, for writing."""
    return table.frame.astype({**dict.fromkeys(_INTEGERS, "Int64"), **dict.fromkeys(_FLOATS, "float64")})


def scores_csv(table: TransferTable) -> bytes:
    """Return scores.csv: UTF-8, one row per backbone x dataset x regime x seed, floats to the last digit.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; `read_scores` takes it off.
    """
    frame = typed_frame(table)
    texts = [name for name in SCORE_COLUMNS if name not in (*_INTEGERS, *_FLOATS)]
    frame[texts] = frame[texts].replace(FORMULA, r"'\g<0>", regex=True)
    return str(frame.to_csv(index=False, lineterminator="\n")).encode()


def scores_parquet(table: TransferTable) -> bytes:
    """Return scores.parquet, the same rows as scores.csv.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pyarrow", "report") from error
    buffer = io.BytesIO()
    typed_frame(table).to_parquet(buffer, index=False, engine="pyarrow")
    return buffer.getvalue()


def statistics_json(statistics: Mapping[str, Any]) -> bytes:
    """Return statistics.json: UTF-8, indented, strict JSON (no NaN)."""
    return (json.dumps(statistics, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_published(path: Path) -> dict[str, float]:
    """Read the best published score of data sets: a UTF-8 csv with the columns dataset and value.

    Returns
    -------
    dict of str to float
        Fractions by data set.

    Raises
    ------
    JoinError
        The file cannot be read, a column is missing, there is no row, a data set has two, or a value is no fraction
        between 0 and 1.
    """
    _, rows = read_csv(path, ("dataset", "value"))
    if not rows:
        raise JoinError(
            f"{path}: no row below the header: write one for each data set, or do not name the file"
        )
    published: dict[str, float] = {}
    for number, row in rows:
        where, name = f"{path}: line {number}", unguarded(row["dataset"])
        value = _number(float, row["value"], where)
        if not name or value is None:
            raise JoinError(f"{where} has no dataset and value: write dataset,value")
        if not 0 < value < 1:
            raise JoinError(f"{where}: {value:g} is no fraction between 0 and 1")
        if name in published:
            raise JoinError(f"{where}: {name!r} has a value already, {published[name]:g}: keep one of them")
        published[name] = value
    return published


def read_scores(path: Path) -> list[Score]:
    r"""Read score rows from a csv, to be joined with one's own.

    Parameters
    ----------
    path : Path
        UTF-8 csv with a header. Columns as in scores.csv; backbone, dataset, regime, metric and value
        are required, everything else may be absent or empty. Fractions, not percent.

    Returns
    -------
    list of Score
        ``source`` is the file's name and line, unless the csv has a source column; a row with a value
        and no status is complete.

    Raises
    ------
    JoinError
        If the file cannot be read, a column is missing, unknown or named twice, a row is not whole, or a number
        cannot be parsed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "theirs.csv"
    ...     _ = path.write_text("backbone,dataset,regime,metric,value\nvit,pets,linear_probe,top_1,0.91\n")
    ...     read_scores(path)[0].source
    'theirs.csv line 2'
    """
    header, rows = read_csv(path, _REQUIRED)
    unknown = [f"unknown column {name!r}" for name in header if name not in SCORE_COLUMNS]
    if unknown:
        raise JoinError(f"{path}: {'; '.join(unknown)}: use the columns of scores.csv")
    return [_score(row, f"{path.name} line {number}", path) for number, row in rows]


def _score(row: Mapping[str, str], where: str, path: Path) -> Score:
    """One csv line as a score."""
    known = {name: unguarded(row.get(name, "")) for name in SCORE_COLUMNS}
    numbers: dict[str, Any] = {}
    for kind, names in ((int, _INTEGERS), (float, _FLOATS)):
        for name in names:
            numbers[name] = _number(kind, known[name], f"{path}: {where}, column {name}")
    status = known["status"] or ("missing" if numbers["value"] is None else "complete")
    return Score(**{**known, **numbers, "status": status, "source": known["source"] or where})


def _number(kind: Callable[[str], float], text: str, where: str) -> float | None:
    """A number, or None for an empty field."""
    try:
        return kind(text) if text else None
    except ValueError:
        raise JoinError(f"{where}: {text!r} is not a number of the right kind: correct it") from None
