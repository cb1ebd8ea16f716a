"""Features that somebody else computed: checked, and made into entries with a recipe of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.admit import incoming_folder
from cache.annotations import Annotations, about
from cache.atomic import forget, temporary_name
from cache.children import run_child
from cache.entry import Entry
from cache.errors import InvalidInputError, one_line
from cache.inputs import require_file
from cache.keys import CacheKey, canonical_json
from cache.layout import HDF5_SIGNATURE
from cache.names import check_coordinates
from cache.npy import NpyTable, open_npy
from cache.store import Store
from cache.writer import Writer

RECIPE = "foreign-1"
"""Changes when the same files would give another entry."""
_ROWS_AT_A_TIME = 4096
_CHILD_SECONDS = 3600.0


def import_features(
    store: Store,
    features: Path,
    annotations: Annotations,
    coordinates: Mapping[str, str | int | float],
    provenance: Mapping[str, Any] | None = None,
) -> Entry:
    """Make an entry from a .npy file of features and their annotations.

    Parameters
    ----------
    store : Store
        Where it goes.
    features : Path
        A .npy file, (n, d), float32 or float16; float64 is rounded to float32 and the recipe says so.
    annotations : Annotations
        One for each row, in the order of the rows; see `cache.annotations.read_labels`.
    coordinates : mapping
        What people find it by: backbone, weights, dataset, split, preprocessing.
    provenance : mapping, optional
        Where the features come from, in words.

    Raises
    ------
    InvalidInputError
        Not such a file, other numbers of rows, NaN, duplicate ids, labels outside the classes.
    CacheWriteError
        The disk refused.
    """
    require_file(features, "name a .npy file of features")
    return _import_npy(store, features, features, annotations, coordinates, provenance or {})


def _import_npy(
    store: Store,
    features: Path,
    named: Path,
    annotations: Annotations,
    coordinates: Mapping[str, str | int | float],
    provenance: Mapping[str, Any],
) -> Entry:
    """Make an entry from a .npy file; people know it by another name where it was copied."""
    told = _provenance(named, provenance)
    with open_npy(features, named) as table:
        n = len(annotations.ids)
        if table.shape[0] != n:
            raise InvalidInputError(
                f"{named}: {table.shape[0]} rows of features, {n} rows of labels: give one label for each row"
            )
        digest = table.digest()
        key = CacheKey.from_ingredients(
            {
                "annotations": annotations.digest,
                "coordinates": check_coordinates(coordinates),
                "features_sha256": digest,
                "recipe": RECIPE,
                "rounded_from": "float64" if table.dtype.itemsize == 8 else None,
            }
        )
        metadata = {
            "class_names": list(annotations.class_names),
            "coordinates": dict(coordinates),
            "expected_rows": n,
            "multi_label": annotations.multi_label,
            "provenance": told,
        }
        with store.writer(key, metadata) as writer:
            if writer.published is None:
                _stage(writer, table, digest, annotations)
            return writer.publish()


def _stage(writer: Writer, table: NpyTable, digest: str, annotations: Annotations) -> None:
    """Stage all rows, from the first one on: what a former import left may be of a file that changed meanwhile."""
    writer.start_over()
    groups = annotations.groups
    for start, values in table.batches(_ROWS_AT_A_TIME, digest):
        rows = slice(start, start + len(values))
        with about(table.named, "correct it, then import it again"):
            writer.append(
                _stored(values, start),
                annotations.labels[rows],
                annotations.ids[rows],
                stop=rows.stop,
                row_metadata={} if groups is None else {"group": groups[rows]},
            )


def _stored(values: NDArray[Any], first: int) -> NDArray[Any]:
    """Return values as an entry holds them; float64 is rounded."""
    if values.dtype.itemsize < 8:
        return values.astype(values.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    places = np.argwhere(np.isinf(rounded) & np.isfinite(values))
    if len(places):
        row, column = places[0]
        raise InvalidInputError(
            f"features of row {first + row} hold {values[row, column]:g}, which overflows float32"
        )
    return rounded


def _provenance(named: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what goes beside the entry; a file name that is no UTF-8 is spelled with escapes."""
    provenance = {"features": one_line(named.name), **told}
    with about(named, "write it in UTF-8"):
        canonical_json(provenance)
    return provenance


def import_hdf5(
    store: Store,
    source: Path,
    annotations: Annotations,
    coordinates: Mapping[str, str | int | float],
    *,
    dataset: str = "features",
    provenance: Mapping[str, Any] | None = None,
) -> Entry:
    """Make an entry from a dataset of anybody's HDF5 file; libhdf5 reads it in a limited child.

    Parameters
    ----------
    store, annotations, coordinates, provenance
        As for `import_features`.
    source : Path
        The HDF5 file.
    dataset : str
        Name of the (n, d) dataset of floats in it.

    Raises
    ------
    InvalidInputError
        The dataset is absent, has another kind or shape, lies outside the file, or cannot be read.
    """
    _refuse_other_than_hdf5(source)
    rows = len(annotations.ids)
    target = temporary_name(incoming_folder(store) / "features.npy")
    try:
        arguments = [str(source.absolute()), dataset, str(rows), str(target.absolute())]
        answer = run_child("cache.extract_foreign", arguments, timeout=_CHILD_SECONDS)
        if answer.failure or "error" in answer.values:
            reason = answer.failure or answer.values["error"]
            raise InvalidInputError(f"{source}: {reason}: nothing was imported, name another file or dataset")
        where = {"hdf5": one_line(source.name), "dataset": one_line(dataset), **(provenance or {})}
        return _import_npy(store, target, source, annotations, coordinates, where)
    finally:
        forget(target)


def _refuse_other_than_hdf5(source: Path) -> None:
    """Refuse what HDF5 would not open, with words that say what it is."""
    size = require_file(source, "name a file of features, .npy or HDF5").st_size
    with source.open("rb") as file:
        beginning, place = file.read(len(HDF5_SIGNATURE)), 0
        while place < size:
            file.seek(place)
            if file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
                return
            place = max(512, 2 * place)
    raise InvalidInputError(
        f"{source}: starts with {beginning!r}, so it is no HDF5 file: hand over features as HDF5, or as .npy, "
        "made by numpy.save"
    )
