"""Texts that come from people and may be stored: ids, class names, coordinates, reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from cache.errors import NO_TEXT, InvalidInputError

MAXIMUM_NAME_BYTES = 1024
"""Of an id, a class name, a coordinate, in UTF-8."""
_LARGEST_NUMBER = 2**53
_WIDEST = 4
"""Bytes of a character in UTF-8, at most."""


def check_text(value: object, what: str) -> str:
    """Return a text that stays on one line of any terminal and in any file.

    Raises
    ------
    InvalidInputError
        Not a str, empty, longer than `MAXIMUM_NAME_BYTES`, or with characters that are no text.
    """
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{what} {ascii(value)[:80]} is no text: write one")
    if NO_TEXT.search(value):
        raise InvalidInputError(f"{what} {ascii(value)[:80]} holds a control character: rename it")
    if len(value) > MAXIMUM_NAME_BYTES or len(value.encode("utf-8")) > MAXIMUM_NAME_BYTES:
        raise InvalidInputError(
            f"{what} {ascii(value)[:80]} is longer than {MAXIMUM_NAME_BYTES} bytes: shorten it"
        )
    return value


def check_texts(values: Sequence[object], what: str) -> tuple[str, ...]:
    """Return texts that are each as `check_text` wants them; many of them at the price of one.

    Raises
    ------
    InvalidInputError
        Naming the first that is not.
    """
    texts = [value for value in values if isinstance(value, str)]
    shortest, longest = min(map(len, texts), default=0), max(map(len, texts), default=0)
    # Characters that are no text are told one by one, so the texts may be looked at as one.
    if (
        len(texts) == len(values)
        and shortest
        and longest * _WIDEST <= MAXIMUM_NAME_BYTES
        and not NO_TEXT.search("".join(texts))
    ):
        return tuple(texts)
    return tuple(check_text(value, what) for value in values)


def check_class_names(names: object) -> tuple[str, ...]:
    """Return class names: at least one, each a text, none twice.

    Raises
    ------
    InvalidInputError
        Anything else.
    """
    if not isinstance(names, list | tuple) or not names:
        raise InvalidInputError("class names are no list with at least one name")
    checked = check_texts(names, "class name")
    if len(set(checked)) != len(checked):
        raise InvalidInputError("a class name occurs twice")
    return checked


def check_coordinates(coordinates: object) -> dict[str, str | int | float]:
    """Return human coordinates: a flat mapping of text to text or finite number.

    Raises
    ------
    InvalidInputError
        Anything else.
    """
    if not isinstance(coordinates, Mapping):
        raise InvalidInputError("coordinates are no mapping of names to texts or numbers")
    checked: dict[str, str | int | float] = {}
    for name, value in coordinates.items():
        if _is_number(value):
            checked[check_text(name, "coordinate")] = value
        else:
            checked[check_text(name, "coordinate")] = check_text(value, f"coordinate {name}")
    return checked


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that every reader of JSON holds exactly or as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= _LARGEST_NUMBER


def check_excluded(pairs: object) -> tuple[tuple[str, str], ...]:
    """Return (id, reason) pairs of rows without features.

    Raises
    ------
    InvalidInputError
        Anything else.
    """
    if not isinstance(pairs, list | tuple):
        raise InvalidInputError("excluded rows are no list of [id, reason]")
    checked = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InvalidInputError("an excluded row is no [id, reason]")
        checked.append((check_text(pair[0], "id"), check_text(pair[1], "reason")))
    return tuple(checked)


def check_columns(columns: object, rows: int) -> dict[str, tuple[str | None, ...]]:
    """Return row metadata: named columns with one text or None for each row.

    Raises
    ------
    InvalidInputError
        Anything else.
    """
    if not isinstance(columns, Mapping):
        raise InvalidInputError("row metadata are no mapping of names to columns")
    checked: dict[str, tuple[str | None, ...]] = {}
    for name, column in columns.items():
        check_text(name, "row metadata")
        if not isinstance(column, list | tuple) or len(column) != rows:
            raise InvalidInputError(
                f"row metadata {name!r} is no list with one value for each of {rows} rows"
            )
        check_texts([cell for cell in column if cell is not None], f"row metadata {name}")
        checked[name] = tuple(column)
    return checked
