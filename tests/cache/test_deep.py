"""HDF5 sides that lie: served by the index all the same, and caught when one looks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import DamagedEntryError, Store
from cache.deep import deep_contradictions
from cache.verify import verify
from tests.cache import forge
from tests.cache.conftest import Make, batch, key_of

Lie = Callable[[h5py.File, Path], None]
SECRET = np.full((6, 4), 7, "<f4")


def honest(file: h5py.File, without: str = "") -> None:
    rows = batch(0, 6, 4, 3, False, np.float32)
    if without != "features":
        file["features"] = rows["features"]
    if without != "labels":
        file["labels"] = rows["labels"]
    if without != "ids":
        file["ids"] = np.array([name.encode() for name in rows["ids"]])


def external_link(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = SECRET
    file["features"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")


def soft_link(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file["secret"] = SECRET
    file["features"] = h5py.SoftLink("/secret")


def dangling_link(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file["features"] = h5py.SoftLink("/nowhere")


def link_to_itself(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file["features"] = h5py.SoftLink("/features")


def external_storage(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    SECRET.tofile(folder / "secret.bin")
    file.create_dataset("features", (6, 4), "<f4", external=[(str(folder / "secret.bin"), 0, 96)])


def virtual(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = SECRET
    layout = h5py.VirtualLayout((6, 4), "<f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (6, 4))
    file.create_virtual_dataset("features", layout)


def virtual_without_source(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    layout = h5py.VirtualLayout((6, 4), "<f4")
    layout[:] = h5py.VirtualSource(str(folder / "absent.h5"), "secret", (6, 4))
    file.create_virtual_dataset("features", layout)


def replaced(**options: Any) -> Lie:
    def lie(file: h5py.File, folder: Path) -> None:
        honest(file, "features")
        file.create_dataset("features", **{"data": SECRET, **options})

    return lie


def huge(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file.create_dataset("features", (2**40, 4), "<f4", chunks=(1024, 4), compression="gzip")


def unwritten(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file.create_dataset("features", (6, 4), "<f4", chunks=(2, 4))


def group_instead(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file.create_group("features")


def objects(file: h5py.File, folder: Path) -> None:
    honest(file, "ids")
    file.create_dataset("ids", data=[f"a{k}" for k in range(6)], dtype=h5py.string_dtype())


def one_more(file: h5py.File, folder: Path) -> None:
    honest(file)
    file["more"] = SECRET


def attribute(file: h5py.File, folder: Path) -> None:
    honest(file)
    file.attrs["note"] = "hello"


def other_values(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file["features"] = SECRET


def other_order(file: h5py.File, folder: Path) -> None:
    honest(file, "labels")
    file["labels"] = np.zeros(6, np.int64)


def nothing(file: h5py.File, folder: Path) -> None:
    del file


def compound(file: h5py.File, folder: Path) -> None:
    honest(file, "features")
    file["features"] = np.zeros(6, dtype=[("x", "<f4"), ("y", "<f4")])


def references(file: h5py.File, folder: Path) -> None:
    honest(file, "labels")
    file.create_dataset("labels", data=[file["features"].ref] * 6, dtype=h5py.ref_dtype)


def enumeration(file: h5py.File, folder: Path) -> None:
    honest(file, "labels")
    file.create_dataset("labels", data=[0] * 6, dtype=h5py.enum_dtype({"cat": 0, "dog": 1}, basetype="<i4"))


def opaque(file: h5py.File, folder: Path) -> None:
    honest(file, "ids")
    file.create_dataset("ids", data=np.array([b"a" * 15] * 6, dtype="V15"))


def long_id(file: h5py.File, folder: Path) -> None:
    honest(file, "ids")
    file["ids"] = np.array([b"../" * 100] * 6)


def attribute_of_array(file: h5py.File, folder: Path) -> None:
    honest(file)
    file["features"].attrs["unit"] = "lies"


LIES: dict[str, tuple[Lie, str]] = {
    "external link": (external_link, "features is a ExternalLink"),
    "soft link": (soft_link, "features is a SoftLink"),
    "dangling link": (dangling_link, "features is a SoftLink"),
    "link to itself": (link_to_itself, "features is a SoftLink"),
    "external storage": (external_storage, "features is stored in other files"),
    "virtual": (virtual, "features is virtual"),
    "virtual without source": (virtual_without_source, "features is virtual"),
    "gzip": (replaced(compression="gzip"), r"features is filtered \(deflate\)"),
    "lzf": (replaced(compression="lzf"), r"features is filtered \(lzf\)"),
    "shuffled": (replaced(shuffle=True, chunks=(2, 4)), r"features is filtered \(shuffle\)"),
    "checksummed": (replaced(fletcher32=True, chunks=(2, 4)), r"features is filtered \(fletcher32\)"),
    "chunked": (replaced(chunks=(2, 4)), "features is chunked"),
    "growing": (replaced(maxshape=(None, 4)), "features is chunked"),
    "float64": (replaced(data=SECRET.astype("<f8")), r"features is \('<f8'"),
    "big-endian": (replaced(data=SECRET.astype(">f4")), r"features is \('>f4'"),
    "transposed": (replaced(data=SECRET.T), r"features is \('<f4', \(4, 6\)\)"),
    "scalar": (replaced(data=1.0), r"features is \('<f8', \(\)\)"),
    "huge": (huge, r"features is \('<f4', \(1099511627776, 4\)\)"),
    "unwritten": (unwritten, "features is not written"),
    "group": (group_instead, "features is a Group"),
    "compound": (compound, r"features is \('\|V8'"),
    "references": (references, r"labels is \('\|O'"),
    "enumeration": (enumeration, r"labels is \('<i4'"),
    "opaque": (opaque, r"ids is \('\|V15'"),
    "variable length": (objects, r"ids is \('\|O'"),
    "long ids": (long_id, r"ids is \('\|S300'"),
    "one more": (one_more, "HDF5 holds .*more"),
    "attribute": (attribute, "HDF5 holds .* and 1 attributes"),
    "attribute of an array": (attribute_of_array, "features has 1 attributes"),
    "other values": (other_values, "features lies at byte"),
    "other labels": (other_order, "labels lies at byte"),
    "nothing": (nothing, r"HDF5 holds \[\]"),
}

FELL_FOR = {
    "external link", "soft link", "external storage", "virtual", "gzip", "lzf", "shuffled", "checksummed",
    "chunked", "growing", "float64", "big-endian", "other values",
}  # fmt: skip
"""Plain h5py hands out the values of somebody else's choosing, without a word."""
ZEROS = {"virtual without source", "unwritten"}
"""Plain h5py hands out zeros that nobody wrote."""
CLAIMS = {
    "transposed": ("features", (4, 6)), "scalar": ("features", ()), "huge": ("features", (2**40, 4)),
    "compound": ("features", (6,)), "references": ("labels", (6,)), "enumeration": ("labels", (6,)),
    "opaque": ("ids", (6,)), "variable length": ("ids", (6,)), "long ids": ("ids", (6,)),
    "other labels": ("labels", (6,)),
}  # fmt: skip
"""Plain h5py believes a type, a shape or values that the rows do not have."""
ACCEPTED = {"one more", "attribute", "attribute of an array"}
"""Plain h5py reads the right values and sees nothing wrong."""
NO_ARRAY = {"dangling link", "link to itself", "group", "nothing"}
"""There is nothing that plain h5py could read."""


def lying(name: str, raw: bytes, folder: Path) -> bytes:
    """Return an entry whose index is honest and whose HDF5 side is not."""
    path = folder / "lie.h5"
    with h5py.File(path, "w", userblock_size=65536, libver=("earliest", "v110")) as file:
        LIES[name][0](file, folder)
    return forge.in_front_of(path.read_bytes(), raw)


@pytest.mark.parametrize("name", LIES)
def test_the_index_is_served_whatever_hdf5_says(store: Store, raw: bytes, tmp_path: Path, name: str) -> None:
    forge.place(lying(name, raw, tmp_path), store.path_of(key_of()))
    np.testing.assert_array_equal(
        store.read(key_of()).features, batch(0, 6, 4, 3, False, np.float32)["features"]
    )


@pytest.mark.parametrize("name", LIES)
def test_a_lying_hdf5_side_is_caught_for_its_own_reason(raw: bytes, tmp_path: Path, name: str) -> None:
    path = forge.place(lying(name, raw, tmp_path), tmp_path / "entry.h5")
    told = deep_contradictions(path)
    assert [line for line in told if re.match(LIES[name][1], line)], told
    assert all(line.isprintable() for line in told)


@pytest.mark.parametrize("name", LIES)
def test_what_plain_h5py_makes_of_it(raw: bytes, tmp_path: Path, name: str) -> None:
    """The control: all but the four that have no array are read without a word of warning."""
    path = forge.place(lying(name, raw, tmp_path), tmp_path / "entry.h5")
    honest_rows = batch(0, 6, 4, 3, False, np.float32)
    with h5py.File(path) as file:
        if name in FELL_FOR:
            np.testing.assert_array_equal(file["features"][:], SECRET)
        elif name in ZEROS:
            np.testing.assert_array_equal(file["features"][:], np.zeros((6, 4)))
        elif name in CLAIMS:
            array, shape = CLAIMS[name]
            assert file[array].shape == shape
            found = file[array][:1] if shape else file[array][()]
            assert np.asarray(found).tolist() != file_rows(array, honest_rows)[:1].tolist()
        elif name in ACCEPTED:
            np.testing.assert_array_equal(file["features"][:], honest_rows["features"])
        else:
            assert name in NO_ARRAY
            with pytest.raises((KeyError, RuntimeError, AttributeError, TypeError, ValueError)):
                file["features"][:]


def file_rows(array: str, rows: dict[str, Any]) -> Any:
    """Return what an honest file holds, from its last row on: the first label is 0 in a lie, too."""
    values = np.array([name.encode() for name in rows["ids"]]) if array == "ids" else rows[array]
    return values[::-1]


def test_a_foreign_user_block_is_refused(store: Store, tmp_path: Path) -> None:
    """HDF5 lets anybody keep anything in front of a file; what is not ours is no entry, however sound the HDF5."""
    path = store.path_of(key_of())
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w", userblock_size=65536) as file:
        honest(file)
    with path.open("r+b") as raw_file:
        raw_file.write(b"#!/bin/sh\necho somebody else's header\n")
    with h5py.File(path) as file:
        assert set(file) == {"features", "ids", "labels"}
    with pytest.raises(
        DamagedEntryError, match=r"starts with b'#!/bin/sh.*, not with an entry's magic bytes"
    ):
        store.read(key_of())


def test_an_honest_entry_has_no_contradictions(store: Store, make: Make) -> None:
    entry = make(rows=50)
    assert deep_contradictions(entry.path) == ()
    done = verify(store, entry.key, deep=True)
    assert done.deep
    assert done.nbytes == sum(spec.nbytes for spec in entry.index.arrays.values())


def test_a_crash_of_the_child_is_a_finding(raw: bytes, tmp_path: Path) -> None:
    """HDF5 metadata of random bytes: whatever the library makes of them, this process goes on."""
    index, block_bytes = forge.index_of(raw)
    first = min(spec["offset"] for spec in index["arrays"].values())
    dice = np.random.default_rng(5)
    noise = b"\x89HDF\r\n\x1a\n" + dice.bytes(first - block_bytes - 8)
    whole = raw[:block_bytes] + noise + raw[first:]
    lie = forge.with_index(raw, forge.fitting(index, whole, block_bytes), whole[block_bytes:])
    (finding,) = deep_contradictions(forge.place(lie, tmp_path / "entry.h5"))
    assert finding.startswith("HDF5 cannot be read")


def test_verify_deep_sets_a_liar_aside(store: Store, raw: bytes, tmp_path: Path) -> None:
    path = forge.place(lying("external link", raw, tmp_path), store.path_of(key_of()))
    store.read(key_of())
    with pytest.raises(DamagedEntryError, match="contradicts its index: features is a ExternalLink"):
        verify(store, key_of(), deep=True)
    assert not path.exists()


def test_verify_distrusts_what_was_remembered(store: Store, make: Make) -> None:
    entry = make()
    entry.path.chmod(0o644)
    with entry.path.open("r+b") as file:
        file.seek(entry.index.arrays["features"].offset)
        file.write(b"\xff")
    status = entry.path.stat()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache.verified.time.time_ns", lambda: status.st_ctime_ns + 10**10)
        from cache.entry import open_entry

        with open_entry(entry.path) as opened:
            store.verified.remember(opened.status, opened.block.index_sha256, entry.key.digest)
    store.read(entry.key)
    with pytest.raises(DamagedEntryError, match="its data hash to"):
        verify(store, entry.key)


def test_a_sample_finds_damage_in_the_block_it_draws(store: Store, make: Make) -> None:
    entry = make(rows=10)
    assert verify(store, entry.key, sample=99).nbytes > 0
    raw = entry.path.read_bytes()
    index, _ = forge.index_of(raw)
    for spec in index["arrays"].values():
        spec["blocks"] = ["0" * 64 for _ in spec["blocks"]]
    forge.place(forge.with_index(raw, index), entry.path)
    store.read(entry.key)
    with pytest.raises(DamagedEntryError, match="block 0 of its"):
        verify(store, entry.key, sample=1)
