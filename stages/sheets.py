"""Csv files as people open and write them in spreadsheets: written so that no text is run, read without a loss."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stages.errors import JoinError

FORMULA = re.compile(r"^'*[=+\-@]")
"""How a text begins that a spreadsheet would run, or that was kept from it."""


def guarded(text: str) -> str:
    """Return a text with an apostrophe in front where a spreadsheet would take it for a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Return a text without the apostrophe that keeps spreadsheets from running it."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def csv_bytes(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    r"""Return a table as UTF-8 csv; None is an empty field, texts are `guarded`, numbers written to the last digit.

    Examples
    --------
    >>> csv_bytes(["name", "value"], [["=1+1", -0.5], ["b", None]])
    b"name,value\n'=1+1,-0.5\nb,\n"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([guarded(field) if isinstance(field, str) else field for field in row])
    return text.getvalue().encode()


def read_csv(path: Path, required: Sequence[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a csv that somebody wrote, whole or not at all.

    Parameters
    ----------
    path : Path
        UTF-8, with a header.
    required : sequence of str
        Columns that must be there.

    Returns
    -------
    header : list of str
    rows : list of (int, dict)
        The number of each row's (last) line, and its fields by column, without spaces around them.

    Raises
    ------
    JoinError
        The file cannot be read, a column is missing or named twice, a row has more or fewer fields than the
        header, a quote is never closed, or a field holds a line break.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except csv.Error as error:
        raise JoinError(f"{path}: line {reader.line_num}: {error}: correct quotes and commas there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JoinError(
            f"{path}: cannot be read as UTF-8 csv ({error}): check the path and encoding"
        ) from error
    header = lines[0][1] if lines else []
    wrong = [f"missing column {name}" for name in required if name not in header]
    wrong += [
        f"column {name!r} stands there twice" for name in dict.fromkeys(header) if header.count(name) > 1
    ]
    if wrong:
        raise JoinError(f"{path}: {'; '.join(wrong)}: write a header with {','.join(required)}")
    return header, [(number, _row(fields, header, f"{path}: line {number}")) for number, fields in lines[1:]]


def _row(fields: Sequence[str], header: Sequence[str], where: str) -> dict[str, str]:
    """Return one row's fields by column."""
    if len(fields) != len(header):
        raise JoinError(f"{where} has more or fewer fields than the header: quote commas in names")
    for name, field in zip(header, fields, strict=True):
        if "\n" in field or "\r" in field:  # a quote too many swallows the rows behind it
            raise JoinError(
                f"{where}, column {name}: a line break within quotes: close the quote, one row a line"
            )
    return {name: field.strip() for name, field in zip(header, fields, strict=True)}
