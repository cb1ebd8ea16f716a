"""The two CIFAR releases: both versions of each, unpacked once, and pickles that are never unpickled."""

from __future__ import annotations

import io
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from stages.errors import DatasetError
from tests.stages.datasets import releases
from tests.stages.datasets.releases import load, refused


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_versions_of_cifar_give_the_same_images(tmp_path, name) -> None:
    versions = {"cifar10": ("bin", "py"), "cifar100": ("binary", "python")}[name]
    read = []
    for version in versions:
        getattr(releases, name)(tmp_path / version, version)
        dataset = load(name, tmp_path / version)
        read.append([
            (id_, label, path.read_bytes())
            for split in dataset.splits.values()
            for id_, label, path in zip(split.ids, split.labels.tolist(), split.paths, strict=True)
        ])  # fmt: skip
    assert read[0] == read[1]
    pixels, _ = releases.cifar_pixels(6 if name == "cifar10" else 12, 0)
    with Image.open(io.BytesIO({row[0]: row[2] for row in read[0]}["train/00001"])) as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1).reshape(-1), pixels[1])


def test_cifar_is_unpacked_once_and_again_when_it_changes(tmp_path) -> None:
    releases.cifar10(tmp_path)
    first = load("cifar10", tmp_path).splits["train"].paths[0]
    stamp = first.stat().st_mtime_ns
    assert load("cifar10", tmp_path).splits["train"].paths[0].stat().st_mtime_ns == stamp
    batch = tmp_path / "cifar-10-batches-bin/data_batch_1.bin"
    batch.write_bytes(batch.read_bytes()[:3073])
    assert load("cifar10", tmp_path).splits["train"].paths[0].parent != first.parent


def by_python_2(value: object) -> bytes:
    """Pickle as Python 2 did: its texts are bytes, and an array's content is such a text."""
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in value.shape) + b"t"
        state = b"(K\x01" + shape + by_python_2(value.dtype) + b"\x89" + by_python_2(value.tobytes()) + b"t"
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        return start + state + b"b"
    if isinstance(value, np.dtype):
        letters = by_python_2(value.str[1:])
        rest = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        return b"cnumpy\ndtype\n(" + letters + b"K\x00K\x01tR" + rest + b"b"
    if isinstance(value, dict):
        return b"}(" + b"".join(by_python_2(k) + by_python_2(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(by_python_2, value)) + b"e"
    if isinstance(value, str | bytes):
        value = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(value)) + value
    assert isinstance(value, int)
    return b"J" + struct.pack("<i", value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_release_s_own_pickles(tmp_path, name) -> None:
    """The release was pickled by Python 2, which nobody has any more."""
    version = {"cifar10": "py", "cifar100": "python"}[name]
    getattr(releases, name)(tmp_path, version)
    before = load(name, tmp_path)
    for path in tmp_path.glob("cifar-*/*"):
        batch = pickle.loads(path.read_bytes())
        path.write_bytes(b"\x80\x02" + by_python_2(batch) + b".")
        again = pickle.loads(path.read_bytes(), encoding="latin1")
        assert all(np.array_equal(again[key], value) for key, value in batch.items())
    after = load(name, tmp_path)
    for split, rows in before.splits.items():
        assert np.array_equal(after.splits[split].labels, rows.labels)
        assert [p.read_bytes() for p in after.splits[split].paths] == [p.read_bytes() for p in rows.paths]


def test_unpacking_is_told(tmp_path) -> None:
    releases.cifar10(tmp_path)
    told: list[tuple[int, int, str]] = []
    load("cifar10", tmp_path, progress=lambda *words: told.append(words))
    assert told[0] == (1, 36, "unpacking cifar10")
    assert told[-1][:2] == (36, 36)
    told.clear()
    load("cifar10", tmp_path, progress=lambda *words: told.append(words))
    assert not told


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("columns", [False, True])
def test_pickles_of_other_protocols(tmp_path, protocol, columns) -> None:
    """Keys as bytes, and pixels column by column: as people have written the release again."""
    releases.cifar10(tmp_path, "py")
    before = load("cifar10", tmp_path)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        batch = {key.encode(): value for key, value in pickle.loads(path.read_bytes()).items()}
        if b"data" in batch and columns:
            batch[b"data"] = np.asfortranarray(batch[b"data"])
        if b"label_names" in batch:
            batch[b"label_names"] = [name.encode() for name in batch[b"label_names"]]
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
    after = load("cifar10", tmp_path)
    for split, rows in before.splits.items():
        assert np.array_equal(after.splits[split].labels, rows.labels)
        assert [p.read_bytes() for p in after.splits[split].paths] == [p.read_bytes() for p in rows.paths]


class _Hostile:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((6, 3072), dtype=object),
        np.zeros((6, 3072), dtype=np.uint16),
        np.zeros((6, 3071), dtype=np.uint8),
        np.zeros((5, 3072), dtype=np.uint8),
        [0] * 6,
    ],
)
def test_arrays_that_are_no_images_never_reach_numpy(tmp_path, data) -> None:
    releases.cifar10(tmp_path, "py")
    batch = {"labels": [0, 1, 2] * 2, "data": data}
    (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    assert "data_batch_2: " in str(refused("cifar10", tmp_path))


def test_a_pickle_that_asks_for_anything_else_is_refused(tmp_path) -> None:
    releases.cifar10(tmp_path, "py")
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(DatasetError, match=r"data_batch_3: not a batch that can be read .*system"):
        load("cifar10", tmp_path)
