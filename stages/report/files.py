"""The joined table as bytes for disk, and rows that others made as scores."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stages.errors import JoinError, MissingExtraError
from stages.records import Score
from stages.report.table import SCORE_COLUMNS, TransferTable

_INTEGERS = ("n_train", "n_test", "seed", "steps")
_FLOATS = ("value", "imagenet_top1", "l2_lambda", "learning_rate", "weight_decay")
_FORMULA = re.compile(r"^'*[=+\-@]")
"""How a text begins that a spreadsheet would run, or that was kept from it."""
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
    frame[texts] = frame[texts].replace(_FORMULA, r"'\g<0>", regex=True)
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
        The file cannot be read, a column is missing, or a value is no fraction between 0 and 1.
    """
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise JoinError(f"{path}: cannot be read as UTF-8 csv ({error}): check the path") from error
    published = {}
    for number, line in enumerate(lines, 2):
        try:
            name, value = line["dataset"], float(line["value"])
        except (KeyError, TypeError, ValueError):
            raise JoinError(f"{path}: line {number} has no dataset and value: write dataset,value") from None
        if not 0 < value < 1:
            raise JoinError(f"{path}: line {number}: {value:g} is no fraction between 0 and 1")
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
        If the file cannot be read, a column is missing or unknown, or a number cannot be parsed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "theirs.csv"
    ...     _ = path.write_text("backbone,dataset,regime,metric,value\nvit,pets,linear_probe,top_1,0.91\n")
    ...     read_scores(path)[0].source
    'theirs.csv line 2'
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JoinError(
            f"{path}: cannot be read as UTF-8 csv ({error}): check the path and encoding"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = list(reader.fieldnames or [])
    absent = [name for name in _REQUIRED if name not in header]
    unknown = [name for name in header if name not in SCORE_COLUMNS]
    if absent or unknown:
        found = "; ".join(
            [f"missing column {name}" for name in absent] + [f"unknown column {name!r}" for name in unknown]
        )
        raise JoinError(f"{path}: {found}: use the columns of scores.csv")
    return [_score(row, f"{path.name} line {reader.line_num}", path) for row in reader]


def _score(row: Mapping[str | Any, str | Any], where: str, path: Path) -> Score:
    """One csv line as a score."""
    if None in row or None in row.values():
        raise JoinError(f"{path}: {where} has more or fewer fields than the header: quote commas in names")
    known = {name: _unquoted(row.get(name, "").strip()) for name in SCORE_COLUMNS}
    numbers: dict[str, Any] = {}
    for kind, names in ((int, _INTEGERS), (float, _FLOATS)):
        for name in names:
            numbers[name] = _number(kind, known[name], f"{path}: {where}, column {name}")
    status = known["status"] or ("missing" if numbers["value"] is None else "complete")
    return Score(**{**known, **numbers, "status": status, "source": known["source"] or where})


def _unquoted(text: str) -> str:
    """A text without the apostrophe that keeps spreadsheets from running it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _number(kind: Callable[[str], float], text: str, where: str) -> float | None:
    """A number, or None for an empty field."""
    try:
        return kind(text) if text else None
    except ValueError:
        raise JoinError(f"{where}: {text!r} is not a number of the right kind: correct it") from None
