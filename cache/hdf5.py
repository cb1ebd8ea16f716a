"""The only module that calls libhdf5; it runs in processes made for it, never in the reader's.

libhdf5 follows links and external storage, believes declared sizes, and can crash on a full disk or a
hostile file. So it lays out files that we then fill ourselves, and looks at files in limited children.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.hashing import read_at
from cache.index import ARRAY_NAMES, ArraySpec

ALIGNMENT_BYTES = 4096
_COMPARED_BYTES = 1 << 20


def lay_out(
    path: Path, block_bytes: int, arrays: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, int]:
    """Create an HDF5 file whose contiguous datasets have their place but no values yet.

    Parameters
    ----------
    path : Path
        Replaced where it exists.
    block_bytes : int
        Size of the user block in front.
    arrays : mapping of name to (dtype, shape)
        In the order in which they lie in the file.

    Returns
    -------
    dict of str to int
        Offset of each array from the start of the file, bytes.
    """
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    offsets = {}
    with h5py.File(
        path, "w", libver=("earliest", "v110"), userblock_size=block_bytes, locking=False,
        alignment_threshold=1, alignment_interval=ALIGNMENT_BYTES,
    ) as file:  # fmt: skip
        for name, (dtype, shape) in arrays.items():
            stored = h5py.string_dtype("utf-8", int(dtype[2:])) if dtype.startswith("|S") else np.dtype(dtype)
            datatype = h5py.h5t.py_create(stored, logical=True)
            dataset = h5py.h5d.create(file.id, name.encode(), datatype, h5py.h5s.create_simple(shape), plist)
            offsets[name] = int(dataset.get_offset())
    return offsets


def contradictions(path: Path, arrays: Mapping[str, ArraySpec]) -> Iterator[str]:
    """Yield every point in which libhdf5's view of a file differs from its index.

    Where places and types agree, the values that libhdf5 reads are held against the bytes at those places.
    """
    with h5py.File(path, "r", locking=False) as file:
        names = set(file)
        if names != set(ARRAY_NAMES) or len(file.attrs):
            yield f"HDF5 holds {sorted(names)} and {len(file.attrs)} attributes"
        for name in ARRAY_NAMES:
            if name in names:
                differences = list(_differences(file, name, arrays[name]))
                yield from differences or _other_values(path, file[name], name, arrays[name])


def _differences(file: Any, name: str, spec: ArraySpec) -> Iterator[str]:
    """Yield differences in kind and place of one array."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        yield f"{name} is a {type(link).__name__} in HDF5"
        return
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        yield f"{name} is a {type(dataset).__name__} in HDF5"
        return
    found = (dataset.dtype.str, dataset.shape)
    if found != (spec.dtype, spec.shape):
        yield f"{name} is {found} in HDF5, {(spec.dtype, spec.shape)} in the index"
    elif storage := _odd_storage(dataset):
        yield f"{name} is {storage} in HDF5, expected contiguous and plain inside the file"
    elif dataset.id.get_offset() != spec.offset:
        yield f"{name} lies at byte {dataset.id.get_offset()} in HDF5, at {spec.offset} in the index"
    if len(dataset.attrs):
        yield f"{name} has {len(dataset.attrs)} attributes in HDF5"


def _odd_storage(dataset: Any) -> str:
    """Say how a dataset is stored where that is not as we store it; nothing where it is."""
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        return "virtual"
    if plist.get_external_count():
        return "stored in other files"
    if plist.get_nfilters():
        return f"filtered ({plist.get_filter(0)[3].decode('ascii', 'replace')})"
    if dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_ALLOCATED:
        return "not written"
    return "" if plist.get_layout() == h5py.h5d.CONTIGUOUS else "chunked"


def _other_values(path: Path, dataset: Any, name: str, spec: ArraySpec) -> Iterator[str]:
    """Yield an array whose values, as libhdf5 reads them, are not the bytes that the index points at."""
    row_bytes = spec.nbytes // spec.shape[0]
    rows = max(1, _COMPARED_BYTES // row_bytes)
    with path.open("rb") as file:
        for start in range(0, spec.shape[0], rows):
            values = dataset[start : start + rows].tobytes()
            if values != read_at(file.fileno(), spec.offset + start * row_bytes, len(values)):
                yield f"{name} has other values in HDF5 than in the index"
                return
