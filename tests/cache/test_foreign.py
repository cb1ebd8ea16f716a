from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import CacheWriteError, DamagedEntryError, InvalidInputError, Store
from cache.annotations import read_labels
from cache.foreign import import_features, import_hdf5
from cache.hand_over import export_entry, import_entry
from tests.cache.conftest import Make, batch, metadata

HERE = {"backbone": "their network", "dataset": "ours", "split": "train"}
FEATURES = np.sin(np.arange(24.0)).reshape(6, 4).astype(np.float32)
CSV = "id,label\na,cat\nb,dog\nc,cat\nd,dog\ne,eel\nf,cat\n"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(CSV)
    return path


def npy(folder: Path, table: Any) -> Path:
    path = folder / "features.npy"
    np.save(path, table)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_features_of_others_become_an_entry(store: Store, labels: Path, tmp_path: Path, dtype: Any) -> None:
    path = npy(tmp_path, FEATURES.astype(dtype))
    entry = import_features(store, path, read_labels(labels), HERE, {"from": "a friend"})
    kept = np.float16 if dtype == np.float16 else np.float32
    np.testing.assert_array_equal(entry.features, FEATURES.astype(kept))
    assert entry.ids == tuple("abcdef")
    np.testing.assert_array_equal(entry.labels, [0, 1, 0, 1, 2, 0])
    assert entry.metadata["class_names"] == ("cat", "dog", "eel")
    assert entry.metadata["provenance"] == {"features": "features.npy", "from": "a friend"}
    assert entry.key.ingredients["recipe"] == "foreign-1"
    assert store.find_one(dataset="ours").key == entry.key.digest
    again = import_features(store, path, read_labels(labels), HERE)
    assert again.key == entry.key


def test_several_labels_and_groups(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label,group\na,cat|? dog,g1\nb,dog|dog,g1\nc,?cat,\n")
    annotations = read_labels(path)
    entry = import_features(store, npy(tmp_path, FEATURES[:3]), annotations, HERE)
    np.testing.assert_array_equal(entry.labels, np.array([[1, -1], [0, 1], [-1, 0]], np.int8))
    assert entry.row_metadata["group"] == ("g1", "g1", None)


def test_an_image_without_labels_among_several(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,cat|dog\nb,\nc, \n")
    np.testing.assert_array_equal(read_labels(path).labels, [[1, 1], [0, 0], [0, 0]])
    path.write_text("id,label\na,cat\nb,\nc,dog\n")
    with pytest.raises(InvalidInputError, match=r"line 3 lacks a label.*--multi-label"):
        read_labels(path)
    annotations = read_labels(path, multi_label=True)
    assert annotations.multi_label
    np.testing.assert_array_equal(annotations.labels, [[1, 0], [0, 0], [0, 1]])


def test_other_labels_give_another_key(store: Store, labels: Path, tmp_path: Path) -> None:
    path = npy(tmp_path, FEATURES)
    first = import_features(store, path, read_labels(labels), HERE)
    labels.write_text(CSV.replace("e,eel", "e,dog"))
    second = import_features(store, path, read_labels(labels, class_names=["cat", "dog", "eel"]), HERE)
    assert first.key != second.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header"),
        ("id,label\n", "needs a header"),
        ("name,label\na,b\n", "needs a header"),
        ("id,label\na,\n", "line 2 lacks"),
        ("id,label\na,b,c\n", "line 2 lacks"),
        ("id,label\na\n", "line 2 lacks"),
        ("id,label\na,bird\n", "'bird' is none of the 2 classes"),
        ("id,label\na,cat|?cat\n", "line 2 has 'cat' and says to ignore it"),
        ("id,label\na,?cat| cat\n", "line 2 has 'cat' and says to ignore it"),
        ("id,label,label\na,cat,dog\n", "two columns are called label"),
        ("id,label\n\n\na,cat\n\nb,\n", "line 6 lacks a label"),
        ('id,label\n"a\nb",cat\n', "line 3: id .* control character"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_labels(path, class_names=["cat", "dog"])
    path.write_bytes(b"id,label\na,\xff\n")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_labels(path)


class Trap:
    """Leaves a trace where somebody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_files_that_are_no_features(store: Store, labels: Path, tmp_path: Path) -> None:
    annotations = read_labels(labels)
    path = tmp_path / "features.npy"
    objects = io.BytesIO()
    np.save(objects, np.array([Trap(tmp_path / "trace")] * 6, dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", "b")
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (6, 2**40)})
    pickled = pickle.dumps(Trap(tmp_path / "trace"))
    for content in (
        objects.getvalue(),
        pickled,
        archive.getvalue(),
        huge.getvalue(),
        b"",
        b"\x93NUMPY\x01\x00",
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"features\.npy"):
            import_features(store, path, annotations, HERE)
    assert not (tmp_path / "trace").exists()
    for table in (FEATURES.ravel(), FEATURES.astype(int), FEATURES[:5], np.full((6, 4), np.nan, np.float32)):
        np.save(path, table)
        with pytest.raises(InvalidInputError):
            import_features(store, path, annotations, HERE)
    assert store.list() == []


def test_a_dataset_of_anybodys_hdf5_becomes_an_entry(store: Store, labels: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.create_dataset("deep/er/features", data=FEATURES, compression="gzip", chunks=(2, 4))
    entry = import_hdf5(store, tmp_path / "theirs.h5", read_labels(labels), HERE, dataset="deep/er/features")
    np.testing.assert_array_equal(entry.features, FEATURES)
    assert entry.metadata["provenance"]["hdf5"] == "theirs.h5"


def build(file: h5py.File, kind: str, folder: Path) -> None:
    """Make a dataset that a cautious reader refuses."""
    if kind in {"external link", "virtual"}:
        with h5py.File(folder / "other.h5", "w") as other:
            other["secret"] = FEATURES
    if kind == "external link":
        file["features"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")
    elif kind == "soft link":
        file["x"], file["features"] = FEATURES, h5py.SoftLink("/x")
    elif kind == "virtual":
        layout = h5py.VirtualLayout((6, 4), "<f4")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (6, 4))
        file.create_virtual_dataset("features", layout)
    elif kind == "external storage":
        FEATURES.tofile(folder / "secret.bin")
        file.create_dataset("features", (6, 4), "<f4", external=[(str(folder / "secret.bin"), 0, 96)])
    elif kind == "unwritten":
        file.create_dataset("features", (6, 4), "<f4", chunks=(2, 4))
    elif kind == "wide":
        file.create_dataset("features", (6, 2**40), "<f4", chunks=(1, 1024), compression="gzip")
    elif kind == "group":
        file.create_group("features")
    elif kind == "integers":
        file["features"] = np.ones((6, 4), int)
    elif kind == "rows":
        file["features"] = FEATURES[:5]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("external link", "is a link"),
        ("soft link", "is a link"),
        ("virtual", "outside the file"),
        ("external storage", "outside the file"),
        ("unwritten", "never written"),
        ("wide", "has the shape|never written"),
        ("group", "is no dataset"),
        ("integers", "expected floats"),
        ("rows", r"expected \(6, d\)"),
        ("absent", "has no features"),
    ],
)
def test_hdf5_that_reaches_elsewhere_is_refused(
    store: Store, labels: Path, tmp_path: Path, kind: str, message: str
) -> None:
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        build(file, kind, tmp_path)
    with pytest.raises(InvalidInputError, match=message) as caught:
        import_hdf5(store, tmp_path / "theirs.h5", read_labels(labels), HERE)
    assert "\n" not in str(caught.value)


def test_hdf5_of_noise_is_refused(store: Store, labels: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + np.random.default_rng(1).bytes(9000))
    with pytest.raises(InvalidInputError, match="nothing was imported"):
        import_hdf5(store, tmp_path / "theirs.h5", read_labels(labels), HERE)


def test_one_file_is_handed_over(store: Store, make: Make, tmp_path: Path) -> None:
    entry = make()
    handed = export_entry(store, entry.key, tmp_path / "for-you.h5")
    assert handed.read_bytes() == entry.path.read_bytes()
    with pytest.raises(InvalidInputError, match="exists already"):
        export_entry(store, entry.key, handed)
    other = Store(tmp_path / "other", private=tmp_path / "private")
    admission = import_entry(other, handed)
    assert admission.status == "added"
    assert admission.entry.metadata["provenance"] == {"host": "here", "seconds": 1.5}
    assert other.read(entry.key).content_digest == entry.content_digest
    assert import_entry(other, handed).status == "present"
    assert handed.exists()
    assert list((other.root / "incoming").iterdir()) == []


def test_a_handed_file_with_other_values_does_not_replace(store: Store, make: Make, tmp_path: Path) -> None:
    entry = make()
    other = Store(tmp_path / "other", private=tmp_path / "private", notify=(lines := []).append)  # type: ignore[var-annotated]
    with other.writer(entry.key, metadata(20)) as writer:
        rows = batch(0, 20, 5, 3, False, np.float32)
        writer.append(**{**rows, "features": rows["features"] * np.float32(1.5)})
        mine = writer.publish()
    admission = import_entry(other, export_entry(store, entry.key, tmp_path / "for-you.h5"))
    assert admission.status == "different"
    assert admission.deviation == pytest.approx(1 / 3, rel=1e-5)
    assert other.read(entry.key).content_digest == mine.content_digest
    assert "the first ones stay" in lines[0]


def test_a_damaged_handed_file_is_refused(store: Store, make: Make, tmp_path: Path) -> None:
    entry = make()
    handed = export_entry(store, entry.key, tmp_path / "for-you.h5")
    raw = bytearray(handed.read_bytes())
    raw[-1] ^= 1
    handed.unlink()
    handed.write_bytes(raw)
    other = Store(tmp_path / "other", private=tmp_path / "private")
    with pytest.raises(DamagedEntryError, match="its data hash to"):
        import_entry(other, handed)
    assert other.list() == []
    with pytest.raises(InvalidInputError, match="no such file"):
        import_entry(other, tmp_path / "absent.h5")
    with pytest.raises(CacheWriteError):
        export_entry(store, entry.key, tmp_path / "no" / "such" / "folder.h5")
