"""Our reader of MATLAB files beside scipy's, and damaged files, which must be refused and nothing worse."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from scipy.io import loadmat, savemat

from stages.datasets import mat_file
from stages.datasets.mat_file import NotMatError, read_mat
from tests.stages.datasets.releases import cars_table

TEST_DATA = os.environ.get("PENULTIMATE_TEST_DATA")
REFERENCE = Path(TEST_DATA).parent / "reference/splits" if TEST_DATA else Path("nowhere")


def written(compressed: bool = False, **variables: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


numeric = some.arrays(
    st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
    some.array_shapes(min_dims=2, max_dims=3, max_side=4),
)


@given(numeric, st.booleans())
def test_numbers_are_those_that_were_written(values, compressed) -> None:
    found = read_mat(written(compressed, x=values))["x"]
    assert np.array_equal(found, values.squeeze(), equal_nan=values.dtype.kind == "f")


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1), min_size=1),
    st.booleans(),
)
def test_cells_of_text(names, compressed) -> None:
    cells = np.empty((1, len(names)), dtype=object)
    cells[0, :] = names
    assert read_mat(written(compressed, names=cells))["names"] == names


def test_structs_and_text_in_other_letters() -> None:
    rows = [("00001.jpg", 3), ("é.jpg", 300)]
    found = read_mat(written(annotations=cars_table(rows)))["annotations"]
    assert [(row["fname"], int(row["class"])) for row in found] == rows
    assert list(found[0]) == ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]


def test_several_variables_and_the_other_byte_order() -> None:
    assert sorted(read_mat(written(a=np.eye(2), b=np.ones((1, 3))))) == ["a", "b"]

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    inner = element(6, struct.pack(">II", 11, 0)) + element(5, struct.pack(">ii", 1, 2))
    inner += struct.pack(">HH", 1, 1) + b"x\0\0\0" + element(4, struct.pack(">HH", 258, 7))
    big = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, inner)
    assert read_mat(big)["x"].tolist() == loadmat(io.BytesIO(big))["x"][0].tolist() == [258, 7]


@pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="PENULTIMATE_TEST_DATA is not set, or has no reference beside it"
)
@pytest.mark.parametrize(
    "name", ["flowers102/setid", "flowers102/imagelabels", "cars/cars_meta", "cars/cars_train_annos"]
)
def test_the_official_files_read_as_scipy_reads_them(name) -> None:
    path = REFERENCE / f"{name}.mat"
    ours, theirs = read_mat(path.read_bytes()), loadmat(path, squeeze_me=True)
    for key, value in ours.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, theirs[key])
        elif isinstance(value[0], dict):
            for field in value[0]:
                assert [row[field] for row in value] == list(theirs[key][field])
        else:
            assert value == [str(item) for item in theirs[key]]


SOUND = [
    written(annotations=cars_table([(f"{i:05d}.jpg", i) for i in range(1, 6)])),
    written(trnid=np.arange(9, dtype=np.uint16)[None, :], valid=np.ones((1, 2))),
    written(compressed=True, labels=np.arange(300, dtype=np.uint8)[None, :]),
]


@given(st.sampled_from(SOUND), st.data())
def test_damaged_files_are_refused_or_read_and_nothing_else(content, data) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    try:
        read_mat(bytes(damaged[:end]))
    except NotMatError as error:
        assert "\n" not in str(error)


def test_a_small_file_cannot_ask_for_much(monkeypatch) -> None:
    monkeypatch.setattr(mat_file, "LARGEST", 1 << 20)
    bomb = zlib.compress(b"\0" * (2 << 20))
    head = SOUND[0][:128]
    with pytest.raises(NotMatError, match="unpacks to too much"):
        read_mat(head + struct.pack("<II", 15, len(bomb)) + bomb)
    flags = struct.pack("<IIII", 6, 8, 1, 0)
    shape = struct.pack("<IIii", 5, 8, 1 << 30, 1 << 30)
    cells = flags + shape + struct.pack("<II", 1, 0)
    with pytest.raises(NotMatError, match="cannot lie in 0 bytes"):
        read_mat(head + struct.pack("<II", 14, len(cells)) + cells)


@pytest.mark.parametrize(
    "content", [b"", b"MATLAB 5.0", b"MATLAB 7.3 MAT-file".ljust(126) + b"IM", b"\x89HDF\r\n"]
)
def test_other_files(content) -> None:
    with pytest.raises(NotMatError, match="does not begin as a MATLAB file of version 5 does"):
        read_mat(content)
