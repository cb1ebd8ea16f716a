"""CIFAR-10 and CIFAR-100, from the binary or the Python version of the release; the images are written once.

The pixels become plain PPM files, whose bytes depend on no encoder's version. An image's id is its place in the
release ("train/00000"), so that both versions give the same ids, labels and image bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.datasets.csv_source import read_csv_rows
from stages.datasets.official import Release, bytes_of, text_of
from stages.datasets.packaged import plain_image
from stages.datasets.rows import Row
from stages.datasets.unpacked import unpack_once
from stages.errors import DatasetError
from stages.records import SplitName

PIXELS = 3 * 32 * 32
VERSION = 1
"""Grows when the same release would be written otherwise."""


@dataclass(frozen=True)
class _Version:
    """One version of one release: its files and what they call things."""

    train: tuple[str, ...]
    test: str
    names: str
    labels: str | int
    """Key of the labels (Python version); bytes before the pixels, the last one the label (binary version)."""
    names_key: str = ""


BINARY = {
    "cifar10": _Version(
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt", 1
    ),
    "cifar100": _Version(("train.bin",), "test.bin", "fine_label_names.txt", 2),
}
PYTHON = {
    "cifar10": _Version(
        tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "labels", "label_names"
    ),
    "cifar100": _Version(("train",), "test", "meta", "fine_labels", "fine_label_names"),
}
Batch = tuple[NDArray[np.uint8], list[int]]
"""(n, 3, 32, 32) pixels and n labels."""


def cifar(release: Release) -> list[Row]:
    """``cifar-10-batches-bin``, ``cifar-10-batches-py``, ``cifar-100-binary`` or ``cifar-100-python``."""
    binary = (release.home / BINARY[release.name].test).is_file()
    version = (BINARY if binary else PYTHON)[release.name]
    files = {"train": [release.file(name) for name in version.train], "test": [release.file(version.test)]}
    names = release.file(version.names)
    digest = hashlib.sha256(f"{release.name} {VERSION}".encode())
    for path in (names, *files["train"], *files["test"]):
        digest.update(hashlib.sha256(bytes_of(path)).digest())
    home = release.unpack_to / f"{release.name}-{digest.hexdigest()[:16]}"
    read = _binary_batch if binary else _python_batch
    unpack_once(home, "split.csv", partial(_unpack, release, files, names, version, read))
    rows = read_csv_rows(home / "split.csv")
    return [Row(row.id.removesuffix(".ppm"), row.path, row.label, row.split) for row in rows]


def _unpack(
    release: Release,
    files: dict[str, list[Path]],
    names_file: Path,
    version: _Version,
    read: Any,
    home: Path,
) -> None:
    """Write the images and their csv into a folder."""
    names = _names(names_file, version)
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    total, done = sum(path.stat().st_size for paths in files.values() for path in paths) // PIXELS, 0
    for split, paths in files.items():
        (home / split).mkdir()
        for entry, label, image in _pictures(split, paths, version, read, names):
            (home / entry).write_bytes(image)
            writer.writerow((entry, label, split))
            done += 1
            release.progress(done, total, f"unpacking {release.name}")
    (home / "split.csv").write_text(table.getvalue(), encoding="utf-8")


def _pictures(
    split: SplitName | str, paths: list[Path], version: _Version, read: Any, names: list[str]
) -> Iterator[tuple[str, str, bytes]]:
    """Yield file name, class name and image file of every image of a split."""
    number = 0
    for path in paths:
        pixels, labels = read(path, version)
        for image, label in zip(pixels, labels, strict=True):
            if not 0 <= label < len(names):
                raise DatasetError(f"{path}: label {label} of {len(names)} classes; fetch the release again")
            yield f"{split}/{number:05d}.ppm", names[label], plain_image(image.transpose(1, 2, 0))
            number += 1


def _names(path: Path, version: _Version) -> list[str]:
    """Return the class names in the order of their numbers."""
    if not version.names_key:
        return [line.strip() for line in text_of(path).splitlines() if line.strip()]
    names = _unpickled(path).get(version.names_key)
    if isinstance(names, list):
        names = [name.decode("latin1") if isinstance(name, bytes) else name for name in names]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{path}: holds no list {version.names_key!r}; fetch the release again")
    return names


def _binary_batch(path: Path, version: _Version) -> Batch:
    """Read records of one or two label bytes and the pixels, colour by colour."""
    assert isinstance(version.labels, int)
    content, size = bytes_of(path), version.labels + PIXELS
    if len(content) % size:
        raise DatasetError(f"{path}: {len(content)} bytes are no multiple of {size}; it was cut short")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, version.labels :].reshape(-1, 3, 32, 32), records[:, version.labels - 1].tolist()


def _python_batch(path: Path, version: _Version) -> Batch:
    """Read a pickled dictionary of pixels and labels."""
    batch = _unpickled(path)
    pixels, labels = batch.get("data"), batch.get(str(version.labels))
    if (
        not isinstance(pixels, _Array)
        or not isinstance(labels, list)
        or pixels.shape != (len(labels), PIXELS)
        or not all(type(label) is int for label in labels)
    ):
        raise DatasetError(
            f"{path}: expected 'data', (n, {PIXELS}) bytes, and {version.labels!r}, n numbers; fetch it again"
        )
    return pixels.pixels().reshape(-1, 3, 32, 32), labels


@dataclass
class _Array:
    """Stands for numpy's array while a pickle is read: numpy believes what a pickle says of memory."""

    shape: tuple[int, ...] = ()
    content: bytes = b""
    order: Literal["C", "F"] = "C"

    @classmethod
    def of(cls, content: object, dtype: object, shape: tuple[int, ...], order: object) -> _Array:
        """Return an array of bytes, as protocol 5 builds them, or refuse it."""
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "|u1", "uint8"):
            raise pickle.UnpicklingError("holds an array of something else than bytes")
        if not isinstance(content, bytes | bytearray) or len(content) != math.prod(shape):
            raise pickle.UnpicklingError("holds an array of more or fewer bytes than it says")
        return cls(shape, bytes(content), "F" if order == "F" else "C")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, in_columns, content = state
        raw = content.encode("latin1") if isinstance(content, str) else content
        found = _Array.of(raw, dtype, shape, "F" if in_columns else "C")
        self.shape, self.content, self.order = found.shape, found.content, found.order

    def pixels(self) -> NDArray[np.uint8]:
        """Return it as numpy's."""
        return np.frombuffer(self.content, np.uint8).reshape(self.shape, order=self.order)


@dataclass
class _Dtype:
    """Stands for numpy's kind of numbers."""

    name: str

    def __setstate__(self, state: object) -> None:
        """Say nothing: bytes have no order."""


class _Plain(pickle.Unpickler):
    """Builds containers, text and stand-ins for numpy's arrays, and refuses to look anything else up."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for one of four names of numpy, or Python 3's way to write bytes."""
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "dtype":
                return lambda kind, *_: _Dtype(str(kind))
            if name == "_reconstruct":
                return lambda *_: _Array()
            if name == "ndarray":
                return _Array
        if (module, name) in {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}:
            return _Array.of
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which no release of CIFAR does")


def _latin1(text: str, encoding: str) -> bytes:
    """Return bytes that protocol 2 wrote as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _unpickled(path: Path) -> dict[str, Any]:
    """Return the dictionary of a pickle that was written by Python 2."""
    content = bytes_of(path)
    try:
        value = _Plain(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise DatasetError(f"{path}: not a batch that can be read ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: holds {type(value).__name__}, not a dictionary; fetch it again")
    return {key.decode("latin1") if isinstance(key, bytes) else key: item for key, item in value.items()}
