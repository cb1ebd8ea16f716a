"""HDF5 sides that lie: served by the index all the same, and caught when one looks."""

from __future__ import annotations

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


LIES: dict[str, Lie] = {
    "external link": external_link,
    "soft link": soft_link,
    "dangling link": dangling_link,
    "link to itself": link_to_itself,
    "external storage": external_storage,
    "virtual": virtual,
    "virtual without source": virtual_without_source,
    "gzip": replaced(compression="gzip"),
    "shuffled": replaced(shuffle=True, chunks=(2, 4)),
    "checksummed": replaced(fletcher32=True, chunks=(2, 4)),
    "chunked": replaced(chunks=(2, 4)),
    "growing": replaced(maxshape=(None, 4)),
    "float64": replaced(data=SECRET.astype("<f8")),
    "big-endian": replaced(data=SECRET.astype(">f4")),
    "transposed": replaced(data=SECRET.T),
    "scalar": replaced(data=1.0),
    "huge": huge,
    "unwritten": unwritten,
    "group": group_instead,
    "variable length": objects,
    "one more": one_more,
    "attribute": attribute,
    "other values": other_values,
    "other labels": other_order,
    "nothing": nothing,
}


def lying(name: str, raw: bytes, folder: Path) -> bytes:
    """Return an entry whose index is honest and whose HDF5 side is not."""
    path = folder / "lie.h5"
    with h5py.File(path, "w", userblock_size=65536, libver=("earliest", "v110")) as file:
        LIES[name](file, folder)
    return forge.in_front_of(path.read_bytes(), raw)


@pytest.mark.parametrize("name", LIES)
def test_the_index_is_served_whatever_hdf5_says(store: Store, raw: bytes, tmp_path: Path, name: str) -> None:
    forge.place(lying(name, raw, tmp_path), store.path_of(key_of()))
    np.testing.assert_array_equal(
        store.read(key_of()).features, batch(0, 6, 4, 3, False, np.float32)["features"]
    )


@pytest.mark.parametrize("name", LIES)
def test_a_lying_hdf5_side_is_caught(raw: bytes, tmp_path: Path, name: str) -> None:
    path = forge.place(lying(name, raw, tmp_path), tmp_path / "entry.h5")
    assert deep_contradictions(path)


@pytest.mark.parametrize(
    "name", ["external link", "soft link", "external storage", "virtual", "other values"]
)
def test_plain_h5py_falls_for_it(raw: bytes, tmp_path: Path, name: str) -> None:
    path = forge.place(lying(name, raw, tmp_path), tmp_path / "entry.h5")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["features"][:], SECRET)


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
