"""Official releases that list their images in text files: Food-101, Birdsnap, SUN397, Aircraft, DTD, Pets."""

from __future__ import annotations

from collections.abc import Iterator

from stages.datasets.official import Release, json_of
from stages.datasets.rows import Row
from stages.errors import DatasetError
from stages.records import SplitName

OFFICIAL: tuple[tuple[str, SplitName], ...] = (("train", "train"), ("val", "validation"), ("test", "test"))
"""What the releases with a validation set of their own call the splits."""
SUN397_LISTS = ("{}", "Partitions/{}", "../Partitions/{}", "../{}")
"""Where Partitions.zip, which holds no folder, is unpacked."""


def food101(release: Release) -> list[Row]:
    """``meta/{train,test}.json``: class -> "class/number"; images in ``images/class/number.jpg``."""
    images, rows = release.folder("images"), []
    for split in ("train", "test"):
        path = release.file(f"meta/{split}.json")
        lists = json_of(path)
        if not isinstance(lists, dict) or not all(isinstance(entries, list) for entries in lists.values()):
            raise DatasetError(f"{path}: expected one list of images a class; {release.again}")
        for label, entries in lists.items():
            strange = [entry for entry in entries if str(entry).rpartition("/")[0] != label]
            if strange:
                raise DatasetError(f"{path}: {strange[0]!r} stands under {label!r}; {release.again}")
            rows += [release.row(images, f"{entry}.jpg", label, split, str(path)) for entry in entries]
    return rows


def birdsnap(release: Release) -> list[Row]:
    """``images.txt`` (a table with the column path) and ``test_images.txt``; a class is a folder.

    ``get_birdsnap.py``, which comes with the release, puts the images into ``download/images``.
    """
    images = release.folder("download/images", "images")
    test = {entry for _, entry in _paths(release, "test_images.txt")}
    listed = list(_paths(release, "images.txt"))
    strange = sorted(test - {entry for _, entry in listed})
    if strange:
        where = release.home / "test_images.txt"
        raise DatasetError(f"{where}: {strange[0]!r} is not in images.txt; {release.again}")
    return [
        release.row(images, entry, entry.partition("/")[0], "test" if entry in test else "train", where)
        for where, entry in listed
    ]


def _paths(release: Release, table: str) -> Iterator[tuple[str, str]]:
    """Yield the column path of a tab-separated table with a header."""
    lines = release.lines(table)
    where, header = next(lines, (f"{release.home / table}:1", ""))
    columns = header.split("\t")
    if "path" not in columns:
        raise DatasetError(f"{where}: the header has no column 'path'; {release.again}")
    at = columns.index("path")
    for where, line in lines:
        cells = line.split("\t")
        if len(cells) <= at or "/" not in cells[at]:
            raise DatasetError(
                f"{where}: no path such as Species/0001.jpg in column {at + 1}; {release.again}"
            )
        yield where, cells[at]


def sun397(release: Release) -> list[Row]:
    """Split 1: ``Training_01.txt``, ``Testing_01.txt`` of "/a/abbey/sun_x.jpg"; the class is "abbey"."""
    rows = []
    halves: tuple[tuple[str, SplitName], ...] = (("Training_01.txt", "train"), ("Testing_01.txt", "test"))
    for name, split in halves:
        for where, line in release.lines(*(place.format(name) for place in SUN397_LISTS)):
            parts = line.strip("/").split("/")
            if not line.startswith("/") or len(parts) < 3:
                raise DatasetError(
                    f"{where}: expected /LETTER/CLASS/IMAGE.jpg, found {line[:60]!r}; {release.again}"
                )
            label = "/".join(parts[1:-1])
            rows.append(release.row(release.home, "/".join(parts), label, split, where))
    return rows


def fgvc_aircraft(release: Release) -> list[Row]:
    """``data/images_variant_{train,val,test}.txt`` of "number variant"; images in ``data/images``."""
    images, rows = release.folder("data/images"), []
    for name, split in OFFICIAL:
        for where, line in release.lines(f"data/images_variant_{name}.txt"):
            number, _, variant = line.partition(" ")
            if not variant:
                raise DatasetError(f"{where}: expected IMAGE VARIANT, found {line[:60]!r}; {release.again}")
            rows.append(release.row(images, f"{number}.jpg", variant.strip(), split, where))
    return rows


def dtd(release: Release) -> list[Row]:
    """Split 1: ``labels/{train,val,test}1.txt`` of "class/image.jpg"; images in ``images``."""
    images, rows = release.folder("images"), []
    for name, split in OFFICIAL:
        for where, line in release.lines(f"labels/{name}1.txt"):
            label, slash, _ = line.partition("/")
            if not slash:
                raise DatasetError(f"{where}: expected CLASS/IMAGE.jpg, found {line[:60]!r}; {release.again}")
            rows.append(release.row(images, line, label, split, where))
    return rows


def oxford_pets(release: Release) -> list[Row]:
    """``annotations/{trainval,test}.txt`` of "Breed_number class species breed"; images in ``images``."""
    images, rows = release.folder("images"), []
    halves: tuple[tuple[str, SplitName], ...] = (("trainval", "train"), ("test", "test"))
    for name, split in halves:
        for where, line in release.lines(f"annotations/{name}.txt"):
            if line.startswith("#"):
                continue
            cells = line.split()
            breed, _, number = cells[0].rpartition("_")
            if len(cells) != 4 or not breed or not number.isdigit():
                raise DatasetError(
                    f"{where}: expected BREED_NUMBER CLASS SPECIES BREED, found {line[:60]!r}; {release.again}"
                )
            rows.append(release.row(images, f"{cells[0]}.jpg", breed, split, where))
    return rows
