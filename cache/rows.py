"""What a batch of rows, and the metadata of an entry, must be before they are stored or believed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import InvalidInputError
from cache.keys import canonical_json
from cache.names import check_class_names, check_columns, check_coordinates, check_excluded, check_texts

_FIELDS = {"coordinates", "class_names", "multi_label", "expected_rows", "provenance"}
_CHECK_ROWS = 4096


@dataclass(frozen=True)
class EntryMetadata:
    """What the caller says about an entry, checked."""

    coordinates: Mapping[str, str | int | float]
    """What people find it by: backbone, weights, dataset, split, preprocessing, ..."""
    class_names: tuple[str, ...]
    multi_label: bool
    expected_rows: int
    """Input rows that have to be consumed before the entry is complete."""
    provenance: Mapping[str, Any]
    """Times, host, versions: goes beside the entry, never into it."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> EntryMetadata:
        """Check a mapping with these fields; ``provenance`` may be absent.

        Raises
        ------
        InvalidInputError
            Unknown or missing fields, wrong types.
        """
        names = set(mapping)
        if names | {"provenance"} != _FIELDS:
            wrong = sorted(str(name) for name in (names | {"provenance"}) ^ _FIELDS)
            raise InvalidInputError(f"metadata has unknown or missing fields: {', '.join(wrong)}")
        rows = mapping["expected_rows"]
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise InvalidInputError(f"expected_rows is {rows!r}: an entry needs at least one input row")
        if not isinstance(mapping["multi_label"], bool):
            raise InvalidInputError(f"multi_label is {mapping['multi_label']!r}, neither True nor False")
        return cls(
            coordinates=check_coordinates(mapping["coordinates"]),
            class_names=check_class_names(mapping["class_names"]),
            multi_label=mapping["multi_label"],
            expected_rows=rows,
            provenance=json.loads(canonical_json(dict(mapping.get("provenance", {})))),
        )

    def shared(self) -> dict[str, Any]:
        """Return what a resumed writer has to agree with."""
        return {
            "class_names": list(self.class_names),
            "coordinates": dict(self.coordinates),
            "expected_rows": self.expected_rows,
            "multi_label": self.multi_label,
        }


@dataclass(frozen=True)
class Batch:
    """Rows that fit an entry, in the byte order and layout of the file."""

    features: NDArray[Any]
    """(b, d) little-endian float32 or float16, C-contiguous, finite."""
    labels: NDArray[Any]
    """(b,) int64 or (b, K) int8, C-contiguous."""
    ids: tuple[str, ...]
    row_metadata: Mapping[str, tuple[str | None, ...]]
    excluded: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of all input rows of the batch, those without features last."""
        return (*self.ids, *(name for name, _ in self.excluded))


def check_batch(
    metadata: EntryMetadata,
    features: NDArray[Any],
    labels: NDArray[Any],
    ids: Sequence[str],
    row_metadata: Mapping[str, Sequence[str | None]],
    excluded: Sequence[Sequence[str]],
    first: int = 0,
) -> Batch:
    """Check one batch against the entry it goes into, of which it is row ``first`` and those behind it.

    Raises
    ------
    InvalidInputError
        Wrong dtype or shape, NaN or infinite features, labels outside the classes, bad ids.
    """
    if isinstance(features, np.ma.MaskedArray) or isinstance(labels, np.ma.MaskedArray):
        raise InvalidInputError("features or labels are a masked array: fill what is masked, or leave it out")
    if isinstance(ids, str):
        raise InvalidInputError(f"ids are the text {ids!r:.80}: expected a list with one id for each row")
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or features.shape[1] < 1 or features.dtype not in (np.float32, np.float16):
        raise InvalidInputError(
            f"features are {features.dtype} {features.shape}: expected (b, d) float32 or float16"
        )
    names = check_texts(ids, "id")
    if len(names) != len(features):
        raise InvalidInputError(f"{len(names)} ids for {len(features)} rows of features")
    check_finite(features, names, first)
    check_labels(labels, len(features), len(metadata.class_names), metadata.multi_label)
    return Batch(
        features=np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("<")),
        labels=np.ascontiguousarray(labels, dtype="|i1" if metadata.multi_label else "<i8"),
        ids=names,
        row_metadata=check_columns(
            {name: _listed(cells) for name, cells in row_metadata.items()}, len(names)
        ),
        excluded=check_excluded([_listed(pair) for pair in excluded]),
    )


def _listed(values: Sequence[Any]) -> object:
    """Return a list of any sequence but a text, whose characters nobody meant."""
    return values if isinstance(values, str) else list(values)


def check_finite(features: NDArray[Any], ids: Sequence[str], first: int = 0) -> None:
    """Refuse NaN and infinities, naming the first row that has one; rows are counted from ``first``.

    Raises
    ------
    InvalidInputError
        With the row's id.
    """
    for start in range(0, len(features), _CHECK_ROWS):
        finite = np.isfinite(features[start : start + _CHECK_ROWS]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(f"features of row {first + row} ({ids[row]!r:.120}) are not finite")


def check_labels(labels: NDArray[Any], rows: int, classes: int, multi_label: bool) -> None:
    """Refuse labels that do not fit the classes.

    Raises
    ------
    InvalidInputError
        Wrong dtype or shape; an index outside 0 ... K-1; a value other than -1, 0, 1.
    """
    dtype, shape = (np.int8, (rows, classes)) if multi_label else (np.int64, (rows,))
    if labels.dtype != dtype or labels.shape != shape:
        raise InvalidInputError(
            f"labels are {labels.dtype} {labels.shape}: expected {np.dtype(dtype)} {shape}"
        )
    low, high = (-1, 1) if multi_label else (0, classes - 1)
    if labels.size and (labels.min() < low or labels.max() > high):
        found = f"{labels.min()} ... {labels.max()}"
        raise InvalidInputError(f"labels reach from {found}: expected {low} ... {high} for {classes} classes")


def check_ids(raw: NDArray[Any]) -> tuple[str, ...]:
    """Decode the ids of a file and refuse what no writer of ours would have stored.

    Raises
    ------
    InvalidInputError
        No UTF-8, empty, control characters, one id twice.
    """
    try:
        ids = check_texts([name.decode("utf-8") for name in raw.tolist()], "id")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"an id is no UTF-8: {error.reason}") from error
    refuse_repeated(ids, ())
    return ids


def refuse_repeated(ids: Sequence[str], seen: Collection[str]) -> None:
    """Refuse ids that occur twice among themselves or were seen before.

    Raises
    ------
    InvalidInputError
        Naming the first id that occurs twice.
    """
    fresh = set(ids)
    if len(fresh) == len(ids) and fresh.isdisjoint(seen):
        return
    fresh.clear()
    for name in ids:
        if name in fresh or name in seen:
            raise InvalidInputError(f"id {name!r:.120} occurs twice")
        fresh.add(name)
