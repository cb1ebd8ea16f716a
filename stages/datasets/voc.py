"""PASCAL VOC: the classification lists of the 2007 release, and folders of one's own in VOC's layout.

An image whose objects of a class are all "difficult" counts neither for nor against the class: the label is
ignored for it (protocol, "Linear probe").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from stages.datasets.official import AGAIN, Release, bytes_of
from stages.datasets.rows import Row, some
from stages.errors import DatasetAbsentError, DatasetError
from stages.records import SplitName

MAIN = "ImageSets/Main"
PRESENT = {"1": "", "0": "?", "-1": None}
"""A label in a class list, as the mark before the class name; None: the class is absent."""
IMAGES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def voc2007(release: Release) -> list[Row]:
    """``ImageSets/Main/CLASS_{trainval,test}.txt`` of "number 1|0|-1"; images in ``JPEGImages``."""
    images, main = release.folder("JPEGImages"), release.folder(MAIN)
    names = sorted(m[1] for path in main.iterdir() if (m := re.fullmatch(r"(.+)_trainval\.txt", path.name)))
    splits: dict[str, SplitName] = dict.fromkeys(_numbers(release, "train"), "train")
    splits |= dict.fromkeys(_numbers(release, "val"), "validation")
    rows = []
    for half in ("trainval", "test"):
        labels = _class_lists(release, half, names)
        for number in _numbers(release, half):
            split = "test" if half == "test" else splits.get(number)
            where = f"{main / half}.txt"
            if split is None:
                raise DatasetError(
                    f"{where}: {number!r} is neither in train.txt nor in val.txt; {release.again}"
                )
            text = "|".join(labels[number])
            rows.append(release.row(images, f"{number}.jpg", text, split, where))
    return rows


def _numbers(release: Release, name: str) -> list[str]:
    """Return the image numbers of one list."""
    return [line.split()[0] for _, line in release.lines(f"{MAIN}/{name}.txt")]


def _class_lists(release: Release, half: str, names: list[str]) -> dict[str, list[str]]:
    """Return the marked class names of every image, classes in order."""
    found: dict[str, list[str]] = {number: [] for number in _numbers(release, half)}
    for name in names:
        listed = set()
        for where, line in release.lines(f"{MAIN}/{name}_{half}.txt"):
            cells = line.split()
            if len(cells) != 2 or cells[1] not in PRESENT or cells[0] not in found:
                raise DatasetError(
                    f"{where}: expected an image of {half}.txt and 1, 0 or -1, found {line[:60]!r}; "
                    f"{release.again}"
                )
            mark = PRESENT[cells[1]]
            listed.add(cells[0])
            if mark is not None:
                found[cells[0]].append(mark + name)
        if len(listed) < len(found):
            lacking = some(sorted(set(found) - listed))
            where = str(release.home / MAIN / f"{name}_{half}.txt")
            raise DatasetError(f"{where}: lacks images of {half}.txt: {lacking}; {release.again}")
    return found


def read_voc_rows(root: Path) -> list[Row]:
    """List the images of a folder in VOC's layout, with the labels of their annotations.

    Parameters
    ----------
    root : Path
        Holds ``ImageSets/Main/{train,val,test}.txt`` (``trainval.txt`` where there is no ``train.txt``), the
        annotations ``Annotations/NAME.xml`` and ``JPEGImages/NAME.jpg`` or ``.png``.

    Returns
    -------
    list of Row
        Sorted by id within a split; a class whose objects are all difficult is marked as ignored.

    Raises
    ------
    DatasetError
        The folder, a list or an annotation is missing or damaged.
    """
    if not root.is_dir():
        raise DatasetAbsentError(f"{root}: no such folder; give the path relative to the study file")
    release = Release("voc", root, root)
    main = release.folder(MAIN)
    first = "train" if (main / "train.txt").is_file() else "trainval"
    lists: tuple[tuple[str, SplitName], ...] = ((first, "train"), ("val", "validation"), ("test", "test"))
    rows: list[Row] = []
    for name, split in lists:
        if (name == "val" and first == "trainval") or not (main / f"{name}.txt").is_file():
            continue  # a split without rows is refused, or is not needed, where all sources are checked
        rows += [_annotated(release, number, split) for number in sorted(_numbers(release, name))]
    return rows


def _annotated(release: Release, number: str, split: SplitName) -> Row:
    """Return one image with the labels of its annotation."""
    where = release.home / "Annotations" / f"{number}.xml"
    found = (f"{number}{suffix}" for suffix in IMAGES)
    entry = next((e for e in found if (release.home / "JPEGImages" / e).is_file()), f"{number}.jpg")
    label = "|".join(_objects(release.file(f"Annotations/{number}.xml")))
    return release.row(release.home / "JPEGImages", entry, label, split, str(where))


def _objects(path: Path) -> Iterable[str]:
    """Return the marked class names of an annotation, sorted by name."""
    content = bytes_of(path)
    if b"\0" in content or b"<!" in content.replace(b"<!--", b""):
        raise DatasetError(f"{path}: declares a document type or entities, which no annotation needs")
    try:
        tree = ElementTree.fromstring(content)  # noqa: S314 - without declarations nothing can expand
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path}: not an annotation that can be read ({error}); {AGAIN}") from error
    difficult: dict[str, list[bool]] = defaultdict(list)
    for item in tree.iter("object"):
        name = (item.findtext("name") or "").strip()
        if not name or "|" in name or name.startswith("?"):
            raise DatasetError(
                f"{path}: an object's name is {name!r}; a name holds no | and begins with no ?"
            )
        difficult[name].append((item.findtext("difficult") or "0").strip() == "1")
    return [("?" if all(difficult[name]) else "") + name for name in sorted(difficult)]
