"""Copies one dataset of a foreign HDF5 file to .npy.

``python -m cache.extract_foreign FILE NAME ROWS TARGET`` runs in a child with bounded memory, time and
output. Answers ``{"shape": [...]}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cache.children import answer_parent
from cache.system import limit_this_process

LARGEST_DIMENSION = 1 << 16
_SECONDS = 1800
_MEMORY_BYTES = 4 << 30
_ROWS_AT_A_TIME = 1024
_HEADER_BYTES = 4096


def copy_dataset(source: Path, name: str, rows: int, target: Path) -> tuple[int, ...]:
    """Copy a two-dimensional dataset of floats that lies inside its file.

    Raises
    ------
    ValueError
        It is something else.
    """
    import h5py
    import numpy as np

    with h5py.File(source, "r", locking=False) as file:
        dataset = _inside(file, name, h5py)
        if dataset.ndim != 2 or dataset.shape[0] != rows or not 0 < dataset.shape[1] <= LARGEST_DIMENSION:
            raise ValueError(
                f"{name} has the shape {dataset.shape}: expected ({rows}, d), one row for each label"
            )
        if dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8:
            raise ValueError(f"{name} holds {dataset.dtype}: expected floats")
        dtype = dataset.dtype.newbyteorder("<")
        header = {"descr": dtype.str, "fortran_order": False, "shape": tuple(map(int, dataset.shape))}
        with target.open("xb") as out:  # not mapped: the address space is limited, the file may be larger
            np.lib.format.write_array_header_2_0(out, header)
            for start in range(0, rows, _ROWS_AT_A_TIME):
                values = dataset[start : start + _ROWS_AT_A_TIME]
                out.write(np.ascontiguousarray(values, dtype).data.cast("B"))
        return tuple(dataset.shape)


def _inside(file: Any, name: str, h5py: Any) -> Any:
    """Return a dataset whose values are stored in this very file, all of them."""
    place = file
    for part in [part for part in name.split("/") if part]:
        if not isinstance(place, h5py.Group):
            raise ValueError(f"{place.name} is no group that could hold {part}: name the dataset alone")
        if part not in place:
            raise ValueError(f"has no {name}; it holds {', '.join(sorted(map(ascii, place))[:8])}")
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link to somewhere else")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    plist = place.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise ValueError(f"{name} is stored outside the file")
    if place.id.get_space_status() != h5py.h5d.SPACE_STATUS_ALLOCATED:
        raise ValueError(f"{name} has values that were never written")
    return place


def main(arguments: list[str]) -> int:
    """Copy, and answer the parent in one line."""
    source, name, rows, target = Path(arguments[0]), arguments[1], int(arguments[2]), Path(arguments[3])
    limit_this_process(_SECONDS, _MEMORY_BYTES, rows * LARGEST_DIMENSION * 8 + _HEADER_BYTES)
    try:
        answer: dict[str, Any] = {"shape": list(copy_dataset(source, name, rows, target))}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        answer = {"error": f"{ascii(str(error))[1:-1][:200] or type(error).__name__}"}
    answer_parent(answer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
