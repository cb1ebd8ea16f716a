"""Tables of others: odd headers, byte orders and names, and files that change while they are read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import cache.foreign
from cache import InputChangedError, InvalidInputError, Store
from cache.annotations import Annotations
from cache.foreign import import_features, import_hdf5
from cache.npy import open_npy

HERE = {"backbone": "their network", "dataset": "ours", "split": "train"}


def annotations(rows: int) -> Annotations:
    return Annotations(tuple(f"i{k}" for k in range(rows)), np.zeros(rows, np.int64), ("cat",), False)


def table(rows: int = 6, dimension: int = 4) -> Any:
    return np.sin(np.arange(rows * dimension, dtype=np.float32)).reshape(rows, dimension)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr':'<f4','fortran_order':False,'shape':(10,True)}",
        "{[]:5}",
        "{'descr':'<f4','fortran_order':False,'shape':(10,4)",
        "{'descr':'<f4','fortran_order':False,'shape':(-10,-4)}",
        "{'descr':'<f4','fortran_order':False,'shape':(10,1180591620717411303424)}",
        "{'descr':'f4,f4','fortran_order':False,'shape':(10,4)}",
        "{'descr':'<f4','fortran_order':False,'shape':(10,0)}",
    ],
)
def test_a_header_that_is_none_is_one_line(store: Store, tmp_path: Path, header: str) -> None:
    text = header.encode().ljust(117) + b"\n"
    path = tmp_path / "features.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(320))
    with pytest.raises(InvalidInputError, match=r"features\.npy: .*: \w+") as caught:
        import_features(store, path, annotations(10), HERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dtype", "order"), [(">f8", "C"), ("<f8", "F"), (">f2", "F")])
def test_every_order_of_bytes_and_values(store: Store, tmp_path: Path, dtype: str, order: Any) -> None:
    np.save(tmp_path / "f.npy", np.array(table(), dtype, order=order))
    entry = import_features(store, tmp_path / "f.npy", annotations(6), HERE)
    np.testing.assert_array_equal(entry.features, table().astype(dtype).astype(entry.features.dtype))


def test_what_overflows_and_what_is_not_finite_is_told_with_its_row(store: Store, tmp_path: Path) -> None:
    rows, path = 4100, tmp_path / "f.npy"
    values = np.zeros((rows, 2))
    values[4098, 1] = 1e300
    np.save(path, values)
    with pytest.raises(InvalidInputError, match=r"row 4098 hold 1e\+300, which overflows float32"):
        import_features(store, path, annotations(rows), HERE)
    values[4098, 1] = np.nan
    np.save(path, values.astype(np.float32))
    with pytest.raises(InvalidInputError, match=r"row 4098 \('i4098'\) are not finite"):
        import_features(store, path, annotations(rows), HERE)


@pytest.mark.parametrize("change", ["other values", "cut short"])
def test_a_file_that_changes_is_not_imported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = tmp_path / "f.npy"
    np.save(path, table())
    raw, really = path.read_bytes(), cache.foreign._stored

    def changing(values: Any, first: int) -> Any:
        with path.open("r+b") as file:
            if change == "cut short":
                file.truncate(len(raw) - 16)
            else:
                file.seek(len(raw) - 16)
                file.write(bytes(16))
        return really(values, first)

    with monkeypatch.context() as patch:
        patch.setattr(cache.foreign, "_ROWS_AT_A_TIME", 4)
        patch.setattr(cache.foreign, "_stored", changing)
        with pytest.raises(InputChangedError, match=r"f\.npy: changed while it was being read: import it"):
            import_features(store, path, annotations(6), HERE)
    assert store.list() == []
    path.write_bytes(raw)
    np.testing.assert_array_equal(import_features(store, path, annotations(6), HERE).features, table())


def test_columns_that_change_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f.npy"
    np.save(path, np.asfortranarray(table()))
    with open_npy(path, path) as opened:
        batches = opened.batches(3, opened.digest())
        np.testing.assert_array_equal(next(batches)[1], table()[:3])
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(bytes(4))
        with pytest.raises(InputChangedError):
            list(batches)


def test_names_that_are_no_utf8(store: Store, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"o\xff.npy")
    np.save(path, table())
    entry = import_features(store, path, annotations(6), HERE)
    assert entry.metadata["provenance"] == {"features": r"o\udcff.npy"}
    with pytest.raises(InvalidInputError, match="coordinate backbone"):
        import_features(store, path, annotations(6), {**HERE, "backbone": "o\udcff"})
    with pytest.raises(InvalidInputError, match=r"o\\udcff\.npy: .*: write it in UTF-8"):
        import_features(store, path, annotations(6), HERE, {"from": "o\udcff"})


def test_a_dataset_holds_no_dataset(store: Store, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["features"] = table()
    with pytest.raises(InvalidInputError, match="/features is no group that could hold x: name the dataset"):
        import_hdf5(store, tmp_path / "theirs.h5", annotations(6), HERE, dataset="features/x")


COPY = """
import sys, h5py, numpy, cache.extract_foreign as child
pages = int(open("/proc/self/statm").read().split()[0])
child._MEMORY_BYTES = pages * 4096 + (24 << 20)
child.main(sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how much is mapped")
def test_a_dataset_larger_than_the_memory_allowed_is_copied(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file["features"] = table(200_000, 64)
    arguments = [str(tmp_path / "large.h5"), "features", "200000", str(tmp_path / "out.npy")]
    command = [sys.executable, "-c", COPY, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout == '{"shape": [200000, 64]}\n'
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode="r")[-3:], table(200_000, 64)[-3:])
