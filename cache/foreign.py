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
from cache.digests import digest_of_file
from cache.entry import Entry
from cache.errors import InvalidInputError
from cache.inputs import require_file
from cache.keys import CacheKey
from cache.layout import HDF5_SIGNATURE
from cache.store import Store

RECIPE = "foreign-1"
"""Changes when the same files would give another entry."""
_ROWS_AT_A_TIME = 4096
_CHILD_SECONDS = 3600.0
_NPY = b"\x93NUMPY"


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
    table = _open_npy(features, named)
    n = len(annotations.ids)
    if table.shape[0] != n:
        raise InvalidInputError(
            f"{named}: {table.shape[0]} rows of features, {n} rows of labels: give one label for each row"
        )
    key = CacheKey.from_ingredients(
        {
            "annotations": annotations.digest,
            "coordinates": dict(coordinates),
            "features_sha256": digest_of_file(features),
            "recipe": RECIPE,
            "rounded_from": table.dtype.name if table.dtype == np.float64 else None,
        }
    )
    metadata = {
        "class_names": list(annotations.class_names),
        "coordinates": dict(coordinates),
        "expected_rows": n,
        "multi_label": annotations.multi_label,
        "provenance": {"features": named.name, **provenance},
    }
    dtype = np.float32 if table.dtype == np.float64 else table.dtype.newbyteorder("=")
    with store.writer(key, metadata) as writer:
        for start in range(writer.next_row, n, _ROWS_AT_A_TIME):
            rows = slice(start, min(n, start + _ROWS_AT_A_TIME))
            groups = annotations.groups
            with about(named, "correct it, then import it again"):
                writer.append(
                    np.asarray(table[rows]).astype(dtype),
                    annotations.labels[rows],
                    annotations.ids[rows],
                    stop=rows.stop,
                    row_metadata={} if groups is None else {"group": groups[rows]},
                )
        return writer.publish()


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
        where = {"hdf5": source.name, "dataset": dataset, **(provenance or {})}
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


def _open_npy(path: Path, named: Path) -> NDArray[Any]:
    """Map a .npy file that holds a table of floats; nothing in it is executed."""
    with path.open("rb") as file:
        beginning = file.read(len(_NPY))
    if beginning != _NPY:
        raise InvalidInputError(
            f"{named}: starts with {beginning!r}, so it is no .npy file: save the features with numpy.save"
        )
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise InvalidInputError(
            f"{named}: is no .npy file that can be mapped: {ascii(str(error))[1:-1][:120]}: save the features "
            "with numpy.save as a (n, d) array of float32"
        ) from error
    assert isinstance(table, np.ndarray)  # .npz has other magic bytes
    if table.ndim != 2 or table.dtype.kind != "f" or table.dtype.itemsize > 8:
        raise InvalidInputError(
            f"{named}: holds {table.dtype} {table.shape}: expected floats (n, d), as astype('float32') makes them"
        )
    return table
