"""``csv:`` sources: a table with the columns path, label, split and, if wanted, group.

In place of the column label, each class may have a column of its own, holding 1, 0 or -1 (ignore).
"""

from __future__ import annotations

import csv
import io
import os.path
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.datasets.rows import Row, some
from stages.errors import DatasetAbsentError, DatasetError
from stages.names import did_you_mean
from stages.records import SplitName

REQUIRED = ("path", "label", "split")
COLUMNS = (*REQUIRED, "group")
MARKS = {"1": "", "-1": "?", "0": None, "": None, "1.0": "", "-1.0": "?", "0.0": None}
"""A cell of a class's column, as the mark before the class name; None: the class is absent."""
SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


def read_csv_rows(path: Path) -> list[Row]:
    """Read the rows of a split csv, in the order of the file.

    Parameters
    ----------
    path : Path
        UTF-8, with a header. Image paths are relative to the csv's folder; the path as written is the id.

    Raises
    ------
    DatasetError
        The file is missing, empty, not UTF-8, lacks a column, names a split that is none, or holds something
        other than 1, 0 or -1 in a class's column.
    """
    if not path.is_file():
        raise DatasetAbsentError(f"{path}: no such csv; give the path relative to the study file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 at byte {error.start}; save the csv as UTF-8") from error
    header, records = _table(path, text)
    classes = class_columns(header)
    _check_header(path, header, classes)
    rows, mistakes = [], []
    for where, record in records:
        split = SPLIT_NAMES.get((record["split"] or "").strip())
        if None in record or None in record.values():
            mistakes.append(f"{where}: a cell too many or too few; quote cells that hold commas")
        elif not record["path"]:
            mistakes.append(f"{where}: the path is empty")
        elif split is None:
            hint = did_you_mean(record["split"], SPLIT_NAMES)
            mistakes.append(f"{where}: split {record['split']!r} is not train, validation or test{hint}")
        elif strange := [name for name in classes if record[name].strip() not in MARKS]:
            mistakes.append(_not_a_mark(where, strange[0], record[strange[0]]))
        else:
            rows.append(_row(path.parent, record, split, classes))
    if mistakes:
        more = [f"{path}: {len(mistakes) - 5} more rows like these"] if len(mistakes) > 5 else []
        raise DatasetError("\n".join(mistakes[:5] + more))
    if not rows:
        raise DatasetError(f"{path}: the csv has a header and no rows; list the images")
    _check_paths(path, rows)
    return rows


def _table(path: Path, text: str) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Return the header, and the records with the places they end at; blanks round a column's name are nothing."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)

    def records() -> Iterator[tuple[str, dict[str, str]]]:
        try:
            for record in reader:
                yield f"{path}:{reader.line_num}", record
        except csv.Error as error:
            where = f"{path}:{reader.reader.line_num}"
            raise DatasetError(f"{where}: {error}; is a quotation mark opened and not closed?") from error

    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise DatasetError(f"{path}:1: {error}; expected the header {','.join(REQUIRED)}[,group]") from error
    return reader.fieldnames, records()


def _check_paths(path: Path, rows: Sequence[Row]) -> None:
    """Refuse one file under two spellings: it would count twice, or stand in two splits unseen."""
    first: dict[str, str] = {}
    for row in rows:
        other = first.setdefault(os.path.normpath(row.id), row.id)
        if other != row.id:
            raise DatasetError(f"{path}: {other!r} and {row.id!r} are one file; keep one row each")


def class_columns(header: Sequence[str]) -> list[str]:
    """Return the columns that are classes: where there is no label, all but path, split and group."""
    others = [name for name in header if name not in COLUMNS]
    return others if "label" not in header and {"path", "split"} <= set(header) and len(others) > 1 else []


def has_class_columns(path: Path) -> bool:
    """Whether the classes of a readable csv have columns of their own."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return bool(class_columns([name.strip() for name in next(csv.reader(file), [])]))


def _not_a_mark(where: str, column: str, cell: str) -> str:
    """Say what a class's column holds that it should not."""
    hint = did_you_mean(column, ("label",))
    return f"{where}: column {column!r} holds {cell!r}; a class's column holds 1, 0 or -1 (ignore){hint}"


def _check_header(path: Path, header: list[str], classes: Sequence[str]) -> None:
    """Refuse a csv without the columns, with columns that look like typos of them, or with one twice."""
    if not any(header):
        raise DatasetError(f"{path}: the csv is empty; expected the header {','.join(REQUIRED)}[,group]")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: column {some(twice)} stands there more than once; keep one")
    strange = [name for name in classes if not name or "|" in name or name.startswith("?")]
    if strange:
        raise DatasetError(
            f"{path}: column {strange[0]!r} cannot be a class; a class's name holds no | and begins with no ?"
        )
    if classes:
        return
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise DatasetError(
            f"{path}: no column {some(missing)} (found: {', '.join(header)}); "
            f"expected the header {','.join(REQUIRED)}[,group]"
        )
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        hint = did_you_mean(unknown[0], COLUMNS)
        raise DatasetError(f"{path}: unknown column {some(unknown)}{hint}; known: {', '.join(COLUMNS)}")


def _row(folder: Path, record: dict[str, str], split: SplitName, classes: list[str]) -> Row:
    """Turn one record into a row; white space around the label's parts is not part of them."""
    if classes:
        marks = ((name, MARKS[record[name].strip()]) for name in classes)
        label = "|".join(mark + name for name, mark in marks if mark is not None)
    else:
        label = "|".join(_part(part.strip()) for part in record["label"].split("|"))
    return Row(
        id=record["path"],
        path=folder / record["path"],
        label=label,
        split=split,
        group=(record.get("group") or "").strip(),
    )


def _part(part: str) -> str:
    """Return one name of a label, its mark beside it."""
    return f"?{part[1:].strip()}" if part.startswith("?") else part
