"""`penultimate cache import`: what is no entry, table or list of labels, and what an import did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.cache_folder import cache_root, open_store
from tests.pipeline.wrong_things import WHERE, one_line, put

KINDS = {
    "empty": "starts with b''",
    "truncated": "in a file of",
    "flipped": "its data hash to",
    "login page": "starts with b'<!DOCTYPE",
    "lfs pointer": "starts with b'version",
    "plain hdf5": "is plain HDF5",
    "fifo": "but a FIFO",
    "folder": "but a folder",
    "device": "but a device",
    "socket": "but a socket",
    "dangling": "a symbolic link to nothing",
    "loop": "Too many levels of symbolic links",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_entry_is_not_imported(shop, penultimate, kind):
    put(shop / "in.h5", kind, Path("good.h5").read_bytes())
    result = penultimate("cache", "import", "in.h5")
    assert result.status == 2
    line = one_line(result)
    assert line.startswith("in.h5: ")
    assert KINDS[kind] in line
    assert not list((cache_root() / "features" / "incoming").glob("*"))


@pytest.mark.parametrize("place", ["features", "hdf5", "labels"])
@pytest.mark.parametrize("kind", ["login page", "empty", "fifo", "folder", "socket", "dangling"])
def test_what_is_no_table_is_not_imported(shop, penultimate, place, kind):
    name = {"features": "x.npy", "hdf5": "x.h5", "labels": "x.csv"}[place]
    put(shop / name, kind, b"")
    files = ("f.npy", name) if place == "labels" else (name, "l.csv")
    result = penultimate("cache", "import", *files, *WHERE)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith(f"{name}: ")
    assert any(word in line for word in ("name a", "save ", "hand over", "write id,label"))


TABLES: dict[str, tuple[Callable[[], object], str]] = {
    "nan": (lambda: np.array([[1, 2], [np.nan, 1], [1, 1], [0, 0]], np.float32), "row 1 ('b') are not finite"),
    "integers": (lambda: np.ones((4, 3), np.int64), "holds int64 (4, 3): expected floats (n, d), as astype"),
    "flat": (lambda: np.ones(4, np.float32), "holds float32 (4,): expected floats (n, d)"),
    "objects": (lambda: np.array([[1, "a"]] * 4, dtype=object), "save the features with numpy.save"),
    "rows": (lambda: np.ones((5, 3), np.float32), "5 rows of features, 4 rows of labels: give one label"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_used(shop, penultimate, name):
    make, said = TABLES[name]
    np.save("t.npy", make(), allow_pickle=True)
    result = penultimate("cache", "import", "t.npy", "l.csv", *WHERE)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith("t.npy: ")
    assert said in line
    assert "allow_pickle" not in line


CSV = {
    "id twice": ("id,label\na,x\na,y\nc,x\nd,y\n", "id 'a' occurs twice: correct the csv"),
    "escape code": (
        "id,label\n\x1b[31ma,x\nb,y\nc,x\nd,y\n",
        "line 2: id '\\x1b[31ma' holds a control character",
    ),
    "newline": ('id,label\n"a\nb",x\nb,y\nc,x\nd,y\n', "holds a control character"),
    "escape in a class": ("id,label\na,\x1b[2J\nb,y\nc,x\nd,y\n", "holds a control character"),
    "escape in a group": ("id,label,group\na,x,\x1b\nb,y,\nc,x,\nd,y,\n", "line 2: group"),
    "long id": (f"id,label\n{'a' * 1100},x\nb,y\nc,x\nd,y\n", "line 2: id"),
    "other header": ("nonsense\n", "write id,label first"),
    "no utf-8": ("id,label\n\udcff\udcfe,x\n", "save it as such"),
    "too few": ("id,label\na,x\n", "4 rows of features, 1 rows of labels"),
}


@pytest.mark.parametrize("name", CSV)
def test_labels_that_cannot_be_used(shop, penultimate, name):
    text, said = CSV[name]
    Path("t.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    result = penultimate("cache", "import", "f.npy", "t.csv", *WHERE)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith(("t.csv: ", "f.npy: "))
    assert said in line


def test_odd_names_reach_no_place_outside(shop, penultimate, tmp_path):
    """Ids, classes and coordinates with .. and 300 bytes are texts like any other; a file may be called anything."""
    long = "é" * 150
    Path("odd.csv").write_text(f"id,label\n../../etc/passwd,../x\n/abs,y\n{long},../x\n..,y\n")
    before = {path for path in tmp_path.rglob("*") if cache_root() not in path.parents}
    result = penultimate(
        "cache", "import", "f.npy", "odd.csv", "backbone=../../up", f"dataset={long}", "split=test"
    )
    assert result.status == 0
    assert {path for path in tmp_path.rglob("*") if cache_root() not in path.parents} == before
    (info,) = open_store().find(backbone="../../up")
    assert open_store().read(info.key).ids == ("../../etc/passwd", "/abs", long, "..")
    assert penultimate("cache", "export", info.key, "x" * 240 + ".h5").status == 0
    assert penultimate("cache", "import", "x" * 240 + ".h5").status == 0


def test_what_an_import_did_is_told(shop, penultimate):
    first = penultimate("cache", "import", "f.npy", "l.csv", *WHERE, "--json")
    assert first.err == ""
    row = json.loads(first.out)
    assert (row["status"], row["rows"], row["classes"], row["rounded_from"]) == ("added", 4, 2, None)
    again = json.loads(penultimate("cache", "import", "f.npy", "l.csv", *WHERE, "--json").out)
    assert (again["status"], again["key"]) == ("already here", row["key"])
    np.save("f.npy", np.full((4, 3), 2.0))
    other = penultimate("cache", "import", "f.npy", "l.csv", *WHERE)
    assert f"note: {row['key'][:12]} is of the same backbone, data set and split" in other.err
    assert "note: f.npy: float64 is rounded to float32" in other.err
    shown = json.loads(penultimate("cache", "show", row["key"][:12], "--json").out)
    assert shown["class_names"] == ["x", "y"]
    assert {"features", "written", "host"} <= set(shown["provenance"])
