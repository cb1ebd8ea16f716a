"""Small releases of the paper's data sets, in the layout of the official archives.

Every image is a JPEG whose comment says which class it shows, and in which part of the release it stands: the
truth that labels and splits are compared with.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from stages.datasets import load_dataset
from stages.errors import DatasetError
from stages.records import Dataset

PARTS = ("train", "val", "test")


def jpeg(part: str, label: str, number: int = 0) -> bytes:
    """An image that says what it shows."""
    buffer = io.BytesIO()
    colour = tuple((number * step + len(label)) % 256 for step in (7, 31, 101))
    Image.new("RGB", (8, 8), colour).save(buffer, "jpeg", comment=f"{part}|{label}|{number}".encode())
    return buffer.getvalue()


def said(path: Path) -> tuple[str, str]:
    """Part and class that an image says it shows."""
    with Image.open(path) as image:
        part, label = image.info["comment"].decode().rsplit("|", 1)[0].split("|", 1)
    return part, label


def put(path: Path, content: str | bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(path: Path, items: Iterable[str]) -> None:
    """Write a text file of lines."""
    put(path, "".join(f"{item}\n" for item in items))


def food101(root: Path) -> None:
    home = root / "food-101"
    for part in ("train", "test"):
        table = {}
        for label in ("waffles", "apple_pie", "pho"):
            table[label] = [f"{label}/{10 * n + (part == 'test')}" for n in (3, 12, 1, 7)]
            for number, entry in enumerate(table[label]):
                put(home / f"images/{entry}.jpg", jpeg(part, label, number))
        put(home / f"meta/{part}.json", json.dumps(table))
        lines(home / f"meta/{part}.txt", (entry for entries in table.values() for entry in entries))
    lines(home / "meta/classes.txt", ("apple_pie", "pho", "waffles"))


CIFAR_NAMES = ("airplane", "zebra", "bird")


def cifar_pixels(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Images whose first red pixel is their label."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [i % len(CIFAR_NAMES) for i in range(count)]
    pixels[:, 0] = labels
    return pixels, labels


def cifar10(root: Path, version: str = "bin") -> None:
    home = root / f"cifar-10-batches-{version}"
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        pixels, labels = cifar_pixels(6, seed)
        if version == "bin":
            records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)
            put(home / f"{name}.bin", records.tobytes())
        else:
            files = [f"image_{i}.png" for i in range(6)]
            batch = {"batch_label": name, "labels": labels, "data": pixels, "filenames": files}
            put(home / name, pickle.dumps(batch, protocol=2))
    if version == "bin":
        lines(home / "batches.meta.txt", [*CIFAR_NAMES, ""])
    else:
        meta = {"num_cases_per_batch": 6, "label_names": list(CIFAR_NAMES), "num_vis": 3072}
        put(home / "batches.meta", pickle.dumps(meta, protocol=2))


def cifar100(root: Path, version: str = "binary") -> None:
    home = root / f"cifar-100-{version}"
    for seed, name in enumerate(("train", "test")):
        pixels, labels = cifar_pixels(12, seed)
        if version == "binary":
            coarse = np.full((12, 1), 19, np.uint8)
            records = np.concatenate([coarse, np.array(labels, np.uint8)[:, None], pixels], axis=1)
            put(home / f"{name}.bin", records.tobytes())
        else:
            batch = {"fine_labels": labels, "coarse_labels": [19] * 12, "data": pixels, "batch_label": name}
            put(home / name, pickle.dumps(batch, protocol=2))
    if version == "binary":
        lines(home / "fine_label_names.txt", CIFAR_NAMES)
        lines(home / "coarse_label_names.txt", ("vehicles",))
    else:
        meta = {"fine_label_names": list(CIFAR_NAMES), "coarse_label_names": ["vehicles"]}
        put(home / "meta", pickle.dumps(meta, protocol=2))


def birdsnap(root: Path) -> None:
    home = root / "birdsnap"
    species = ("Western_Gull", "Acadian_Flycatcher")
    lines(
        home / "species.txt",
        ["id\tcommon\tscientific\tdir", *(f"{i}\t{s}\tAvis\t{s}" for i, s in enumerate(species))],
    )
    rows, test = [], []
    for i, label in enumerate(species):
        for number in range(15):
            entry, part = f"{label}/{number * 37:04d}.jpg", "test" if number % 3 == 0 else "train"
            put(home / "download/images" / entry, jpeg(part, label, number))
            rows.append(f"http://example.org/{number}\t0123\t{entry}\t{i}\t1\t2\t3\t4\tnull\tnull")
            test += [entry] if part == "test" else []
    lines(
        home / "images.txt", ["url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\tback_x\tback_y", *rows]
    )
    lines(home / "test_images.txt", ["path", *test])
    put(home / "get_birdsnap.py", "")


def sun397(root: Path) -> None:
    home = root / "SUN397"
    labels = ("abbey", "apartment_building/outdoor", "zoo")
    lines(home / "ClassName.txt", (f"/{label[0]}/{label}" for label in labels))
    for name, part in (("Training_01", "train"), ("Testing_01", "test")):
        entries = [f"/{label[0]}/{label}/sun_{part}{n}.jpg" for label in labels for n in range(5)]
        for number, entry in enumerate(entries):
            put(home / entry[1:], jpeg(part, "/".join(entry.split("/")[2:-1]), number))
        lines(home / "Partitions" / f"{name}.txt", entries)
        lines(home / "Partitions" / f"{name[:-2]}02.txt", entries[:3])
    put(home / "a/abbey/sun_in_no_split.jpg", jpeg("none", "abbey"))


def cars_table(rows: list[tuple[str, int]], *, labelled: bool = True) -> np.ndarray:
    """Annotations as a MATLAB struct array."""
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", *(["class"] if labelled else []), "fname"]
    table = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, (name, k) in enumerate(rows):
        table[0, i] = (1, 2, 3, 4, *([k] if labelled else []), name)
    return table


CARS = ("Zonda C12 2009", "AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def stanford_cars(root: Path, *, labelled_test: bool = True) -> None:
    home = root / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    names = np.empty((1, len(CARS)), dtype=object)
    names[0, :] = CARS
    savemat(home / "devkit/cars_meta.mat", {"class_names": names})
    for part in ("train", "test"):
        rows = [(f"{i + 1:05d}.jpg", i % 3 + 1) for i in range(9)]
        for number, (name, k) in enumerate(rows):
            put(home / f"cars_{part}" / name, jpeg(part, CARS[k - 1], number))
        labelled = part == "train"
        table = cars_table(rows, labelled=labelled)
        savemat(home / f"devkit/cars_{part}_annos.mat", {"annotations": table})
        if not labelled and labelled_test:
            savemat(home / "cars_test_annos_withlabels.mat", {"annotations": cars_table(rows)})


def fgvc_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b/data"
    variants = ("737-200", "An-12", "F/A-18", "Cessna 172")
    lines(data / "variants.txt", variants)
    number = 1025794
    for part in PARTS:
        rows = []
        for label in variants:
            for _ in range(2):
                number -= 13
                put(data / f"images/{number:07d}.jpg", jpeg(part, label, number))
                rows.append(f"{number:07d} {label}")
        lines(data / f"images_variant_{part}.txt", rows)
        lines(data / f"images_family_{part}.txt", [f"{row.split()[0]} Boeing" for row in rows])


VOC = {
    "train": {"000012": {"cat": 1, "dog": -1, "train": 0}, "000005": {"cat": -1, "dog": 1, "train": 1}},
    "val": {"000007": {"cat": 1, "dog": 0, "train": -1}, "000009": {"cat": -1, "dog": -1, "train": 0}},
    "test": {"000002": {"cat": 0, "dog": 1, "train": 1}, "000001": {"cat": 1, "dog": -1, "train": -1}},
}
"""Part -> image -> class -> label of the devkit; one of the classes is called as a split is."""


def voc2007(root: Path) -> None:
    home = root / "VOCdevkit/VOC2007"
    main = home / "ImageSets/Main"
    parts = {**VOC, "trainval": {**VOC["train"], **VOC["val"]}}
    for part, images in parts.items():
        lines(main / f"{part}.txt", images)
        for label in ("cat", "dog", "train"):
            lines(main / f"{label}_{part}.txt", (f"{i} {marks[label]:2d}" for i, marks in images.items()))
        for number, image in enumerate(images):
            put(home / f"JPEGImages/{image}.jpg", jpeg(part, "several", number))
            put(home / f"Annotations/{image}.xml", voc_xml(parts[part][image]))


def voc_xml(marks: dict[str, int]) -> str:
    """An annotation with one object a class that is present, and one where it is difficult."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(mark == 0)}</difficult></object>"
        for name, mark in marks.items()
        if mark >= 0
    )
    return f"<annotation><folder>VOC2007</folder>{objects}</annotation>"


def dtd(root: Path) -> None:
    home = root / "dtd"
    for part in PARTS:
        entries = [f"{label}/{label}_{part}{n}.jpg" for label in ("zigzagged", "banded") for n in range(3)]
        for number, entry in enumerate(entries):
            put(home / "images" / entry, jpeg(part, entry.partition("/")[0], number))
        lines(home / f"labels/{part}1.txt", entries)
        lines(home / f"labels/{part}2.txt", entries[::-1])


def oxford_pets(root: Path) -> None:
    home = root / "oxford-iiit-pet"
    for part in ("trainval", "test"):
        rows = []
        for k, breed in enumerate(("yorkshire_terrier", "Abyssinian", "american_bulldog"), start=1):
            for number in range(5):
                name = f"{breed}_{number + (100 if part == 'test' else 1)}"
                put(home / f"images/{name}.jpg", jpeg(part, breed, number))
                rows.append(f"{name} {k} {1 + (breed[0].islower())} {k}")
        lines(home / f"annotations/{part}.txt", rows)
    put(home / "images/Abyssinian_1.mat", b"MATLAB 5.0, among the images of the release")
    lines(home / "annotations/list.txt", ["#Image CLASS-ID SPECIES BREED ID"])


def caltech101(root: Path) -> None:
    home = root / "caltech101/101_ObjectCategories"
    for label, count in (("dolphin", 33), ("BACKGROUND_Google", 36), ("Faces", 31)):
        for number in range(1, count + 1):
            put(home / label / f"image_{number:04d}.jpg", jpeg("any", label, number))
    put(home / "BACKGROUND_Google/tmp", b"not an image")


def flowers102(root: Path) -> None:
    home = root / "flowers-102"
    labels = np.array([102, 2, 7, 102, 7, 2, 2, 7, 102, 7, 2, 102], dtype=np.uint8)
    sets = {"trnid": [4, 2, 3], "valid": [6, 5, 1], "tstid": [12, 7, 8, 9, 10, 11]}
    for part, key in zip(PARTS, sets, strict=True):
        for number in sets[key]:
            put(home / f"jpg/image_{number:05d}.jpg", jpeg(part, f"{labels[number - 1]:03d}", number))
    savemat(home / "imagelabels.mat", {"labels": labels[None, :]})
    savemat(home / "setid.mat", {key: np.array([ids], dtype=np.uint16) for key, ids in sets.items()})


RELEASES: dict[str, Callable[[Path], None]] = {
    build.__name__: build
    for build in (
        food101, cifar10, cifar100, birdsnap, sun397, stanford_cars, fgvc_aircraft, voc2007, dtd, oxford_pets,
        caltech101, flowers102,
    )
}  # fmt: skip

SIZES = {
    "food101": (12, 12), "cifar10": (30, 6), "cifar100": (12, 12), "birdsnap": (20, 10), "sun397": (15, 15),
    "stanford_cars": (9, 9), "fgvc_aircraft": (16, 8), "voc2007": (4, 2), "dtd": (12, 6), "oxford_pets": (15, 15),
    "caltech101": (90, 10), "flowers102": (6, 6),
}  # fmt: skip
"""Images to train and validate on, and to test on."""


def load(name: str, root: Path | None, **options: Any) -> Dataset:
    """Load a set as it lies, whatever its size."""
    options = {"allow_size_mismatch": True} | options
    if root is not None:
        options = {"unpack_to": root / "unpacked"} | options
    return load_dataset(name, root=root, **options)


def refused(name: str, root: Path, **options: Any) -> DatasetError:
    """The one line of a refusal."""
    with pytest.raises(DatasetError) as caught:
        load(name, root, **options)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    return caught.value
