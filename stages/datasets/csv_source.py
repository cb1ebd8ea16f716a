"""``csv:`` sources: a table with the columns path, label, split and, if wanted, group."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stages.datasets.rows import Row, some
from stages.errors import DatasetAbsentError, DatasetError
from stages.names import did_you_mean
from stages.records import SplitName

REQUIRED = ("path", "label", "split")
COLUMNS = (*REQUIRED, "group")
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
        The file is missing, empty, not UTF-8, lacks a column, or names a split that is none.
    """
    if not path.is_file():
        raise DatasetAbsentError(f"{path}: no such csv; give the path relative to the study file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 at byte {error.start}; save the csv as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    _check_header(path, reader.fieldnames)
    rows, mistakes = [], []
    for record in reader:
        where = f"{path}:{reader.line_num}"
        split = SPLIT_NAMES.get((record["split"] or "").strip())
        if None in record or None in record.values():
            mistakes.append(f"{where}: a cell too many or too few; quote cells that hold commas")
        elif not record["path"]:
            mistakes.append(f"{where}: the path is empty")
        elif split is None:
            hint = did_you_mean(record["split"], SPLIT_NAMES)
            mistakes.append(f"{where}: split {record['split']!r} is not train, validation or test{hint}")
        else:
            rows.append(_row(path.parent, record, split))
    if mistakes:
        more = [f"{path}: {len(mistakes) - 5} more rows like these"] if len(mistakes) > 5 else []
        raise DatasetError("\n".join(mistakes[:5] + more))
    if not rows:
        raise DatasetError(f"{path}: the csv has a header and no rows; list the images")
    return rows


def _check_header(path: Path, header: object) -> None:
    """Refuse a csv without the columns, or with columns that look like typos of them."""
    names = [str(name) for name in header] if isinstance(header, list) else []
    if not names:
        raise DatasetError(f"{path}: the csv is empty; expected the header {','.join(REQUIRED)}[,group]")
    missing = [column for column in REQUIRED if column not in names]
    if missing:
        raise DatasetError(
            f"{path}: no column {some(missing)} (found: {', '.join(names)}); "
            f"expected the header {','.join(REQUIRED)}[,group]"
        )
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        hint = did_you_mean(unknown[0], COLUMNS)
        raise DatasetError(f"{path}: unknown column {some(unknown)}{hint}; known: {', '.join(COLUMNS)}")


def _row(folder: Path, record: dict[str, str], split: SplitName) -> Row:
    """Turn one record into a row; white space around the label's parts is not part of them."""
    label = "|".join(part.strip() for part in record["label"].split("|"))
    return Row(
        id=record["path"],
        path=folder / record["path"],
        label=label,
        split=split,
        group=(record.get("group") or "").strip(),
    )
