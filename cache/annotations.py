"""What belongs to the rows of somebody's table of features: ids, labels, groups, read from a csv."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import InvalidInputError
from cache.inputs import require_file
from cache.keys import sha256_of
from cache.names import check_class_names, check_text
from cache.rows import refuse_repeated


@dataclass(frozen=True)
class Annotations:
    """What belongs to the rows of a table of features."""

    ids: tuple[str, ...]
    labels: NDArray[Any]
    """(n,) int64 or (n, K) int8, -1 = ignore."""
    class_names: tuple[str, ...]
    multi_label: bool
    groups: tuple[str | None, ...] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return sha256_of(
            {
                "class_names": self.class_names,
                "groups": self.groups,
                "ids": self.ids,
                "labels": np.asarray(self.labels).tolist(),
                "multi_label": self.multi_label,
            }
        )


def read_labels(
    path: Path, *, class_names: Sequence[str] | None = None, multi_label: bool = False
) -> Annotations:
    """Read a csv with the columns ``id,label`` and, optional, ``group``; one line for each row of features.

    Labels joined with ``|`` make the set multi-label, a leading ``?`` means ignore. In a multi-label set an
    empty label is an image without any.

    Parameters
    ----------
    path : Path
        UTF-8, with a header line.
    class_names : sequence of str, optional
        All classes in their order; default: the labels that occur, sorted by code point.
    multi_label : bool
        Whether the set is multi-label though no line has more than one label.

    Raises
    ------
    InvalidInputError
        A missing column, an empty cell, a label that is no class; the line is named.
    """
    lines = _lines(path)
    with about(path, "correct the csv, then import again"):
        _check_texts(lines)
    several = multi_label or any("|" in line.label or line.label.startswith("?") for line in lines)
    if not several:
        _refuse_empty(path, lines)
    parts = [_parts(path, line) for line in lines]
    found = {name for marks in parts for name in marks}
    names = tuple(class_names) if class_names is not None else tuple(sorted(found))
    with about(path, "correct the labels, or the classes given"):
        check_class_names(names)
    if unknown := sorted(found - set(names)):
        raise InvalidInputError(
            f"{path}: {unknown[0]!r:.80} is none of the {len(names)} classes: correct the label"
        )
    place = {name: k for k, name in enumerate(names)}
    if several:
        labels = np.zeros((len(lines), len(names)), dtype=np.int8)
        for row, marks in enumerate(parts):
            for name, mark in marks.items():
                labels[row, place[name]] = mark
    else:
        labels = np.array([place[next(iter(marks))] for marks in parts], dtype=np.int64)
    groups = None if lines[0].group is None else tuple(line.group or None for line in lines)
    return Annotations(tuple(line.id for line in lines), labels, names, several, groups)


@dataclass(frozen=True)
class _Line:
    """What a line of the csv holds."""

    number: int
    """In the file, as an editor counts them."""
    id: str
    label: str
    group: str | None
    """None where the csv has no such column."""


def _parts(path: Path, line: _Line) -> dict[str, int]:
    """Return the labels of a line: 1, or -1 for one to be ignored."""
    marks: dict[str, int] = {}
    for part in line.label.split("|") if line.label else ():
        name = part.strip()
        mark = -1 if name.startswith("?") else 1
        name = name.removeprefix("?").strip()
        if marks.setdefault(name, mark) != mark:
            raise InvalidInputError(
                f"{path}: line {line.number} has {name!r:.80} and says to ignore it: write one of both"
            )
    return marks


def _refuse_empty(path: Path, lines: Sequence[_Line]) -> None:
    """Refuse a line without a label where each has one."""
    for line in lines:
        if not line.label:
            raise InvalidInputError(
                f"{path}: line {line.number} lacks a label: write one, or, where an image may have several "
                "labels or none, say that the set is multi-label (--multi-label)"
            )


def _check_texts(lines: Sequence[_Line]) -> None:
    """Refuse ids that occur twice, and ids and groups that are no texts."""
    for line in lines:
        try:
            check_text(line.id, "id")
            if line.group:
                check_text(line.group, "group")
        except InvalidInputError as error:
            raise InvalidInputError(f"line {line.number}: {error}") from error
    refuse_repeated([line.id for line in lines], ())


def _lines(path: Path) -> list[_Line]:
    """Read the lines of a csv that has the columns we need."""
    require_file(path, "name a csv with the columns id and label")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            found = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path}: cannot be read as UTF-8 csv: {error}: save it as such") from error
    if not found or not {"id", "label"} <= set(columns):
        raise InvalidInputError(
            f"{path}: needs a header with id and label, and at least one line: write id,label first, "
            "then a line for each row of features"
        )
    if twice := [name for name in ("id", "label", "group") if columns.count(name) > 1]:
        raise InvalidInputError(f"{path}: two columns are called {twice[0]}: keep one of them")
    return [_line(path, number, line) for number, line in found]


def _line(path: Path, number: int, line: dict[str | Any, str | Any]) -> _Line:
    """Return a line that has a cell for each column, and an id."""
    if not line["id"] or None in line or None in line.values():
        raise InvalidInputError(f"{path}: line {number} lacks an id, or has other columns: correct the line")
    return _Line(number, line["id"], line["label"].strip(), line.get("group"))


@contextlib.contextmanager
def about(path: Path, what_now: str) -> Iterator[None]:
    """Say in which file the mistake is, and what to do."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}: {what_now}") from error
