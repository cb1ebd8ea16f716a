"""What belongs to the rows of somebody's table of features: ids, labels, groups, read from a csv."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Mapping, Sequence
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
    several = multi_label or any("|" in line["label"] or line["label"].startswith("?") for line in lines)
    if not several:
        _refuse_empty(path, lines)
    cells = [[part.strip() for part in line["label"].split("|") if line["label"]] for line in lines]
    found = {part.removeprefix("?") for parts in cells for part in parts}
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
        for row, parts in enumerate(cells):
            for part in parts:
                labels[row, place[part.removeprefix("?")]] = -1 if part.startswith("?") else 1
    else:
        labels = np.array([place[parts[0]] for parts in cells], dtype=np.int64)
    groups = tuple(line["group"] or None for line in lines) if "group" in lines[0] else None
    return Annotations(tuple(line["id"] for line in lines), labels, names, several, groups)


def _refuse_empty(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    """Refuse a line without a label where each has one."""
    for number, line in enumerate(lines, 2):
        if not line["label"]:
            raise InvalidInputError(
                f"{path}: line {number} lacks a label: write one, or, where an image may have several labels or "
                "none, say that the set is multi-label (--multi-label)"
            )


def _check_texts(lines: Sequence[Mapping[str, str]]) -> None:
    """Refuse ids that occur twice, and ids and groups that are no texts."""
    for number, line in enumerate(lines, 2):
        try:
            check_text(line["id"], "id")
            if line.get("group"):
                check_text(line["group"], "group")
        except InvalidInputError as error:
            raise InvalidInputError(f"line {number}: {error}") from error
    refuse_repeated([line["id"] for line in lines], ())


def _lines(path: Path) -> list[dict[str, str]]:
    """Read the lines of a csv that has the columns we need."""
    require_file(path, "name a csv with the columns id and label")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path}: cannot be read as UTF-8 csv: {error}: save it as such") from error
    if not lines or not {"id", "label"} <= set(lines[0]):
        raise InvalidInputError(
            f"{path}: needs a header with id and label, and at least one line: write id,label first, "
            "then a line for each row of features"
        )
    for number, line in enumerate(lines, 2):
        if not line["id"] or None in line or None in line.values():
            raise InvalidInputError(
                f"{path}: line {number} lacks an id, or has other columns: correct the line"
            )
        line["label"] = line["label"].strip()
    return lines


@contextlib.contextmanager
def about(path: Path, what_now: str) -> Iterator[None]:
    """Say in which file the mistake is, and what to do."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}: {what_now}") from error
