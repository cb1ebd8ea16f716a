"""``folder:`` sources: split folders of class folders, or class folders alone with a seeded split."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.datasets.csv_source import SPLIT_NAMES
from stages.datasets.rows import Row, some
from stages.errors import DatasetAbsentError, DatasetError
from stages.records import SplitName
from stages.splitting import hold_out

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pgm .png .pnm .ppm .tif .tiff .webp".split()
)

SPLIT_LIKE = re.compile(
    r"(train|test|val|valid|dev|development|eval|evaluation|holdout)(ing|ation)?"
    r"[ _-]?(set|data|images|imgs|split)?[ _-]?\d*",
    re.IGNORECASE,
)
"""Names of folders that are probably splits, whatever they are called."""


def read_folder_rows(root: Path, *, test_fraction: float, seed: int) -> tuple[list[Row], list[str]]:
    """List the images below a folder, in sorted order, with their class and split.

    Parameters
    ----------
    root : Path
        Either ``train/ [validation/] test/`` (``val`` and ``valid`` too), each with one folder a class, or
        one folder a class; then a stratified share is held out as test.
    test_fraction : float
        Share of the images held out where there are no split folders.
    seed : int
        Of that split.

    Returns
    -------
    rows : list of Row
        The id is the path below ``root``, with forward slashes.
    notes : list of str
        The seeded split, where one was made; files that are no images.

    Raises
    ------
    DatasetError
        The folder is missing, holds no class folders, or has names that are not UTF-8.
    """
    if not root.is_dir():
        raise DatasetAbsentError(f"{root}: no such folder; give the path relative to the study file")
    folders = _subfolders(root)
    by_split = {f: SPLIT_NAMES[f.name.lower()] for f in folders if f.name.lower() in SPLIT_NAMES}
    _check_level(root, folders)
    if by_split and len(by_split) < len(folders):
        others = [folder.name for folder in folders if folder not in by_split]
        raise DatasetError(
            f"{root}: split folders ({some([f.name for f in by_split])}) beside {some(others)}; "
            "keep either split folders or class folders on this level"
        )
    notes: list[str] = []
    if by_split:
        if len(set(by_split.values())) < len(by_split):
            found = list(by_split.values())
            twice = next(split for split in found if found.count(split) > 1)
            names = some(sorted(f.name for f in by_split if by_split[f] == twice))
            raise DatasetError(f"{root}: {names} are names of one split; merge the folders into {twice}/")
        rows = [row for f, split in by_split.items() for row in _class_rows(root, f, split, notes)]
        _tell_of_strays(root, [root, *by_split], notes)
        return rows, notes
    rows = _class_rows(root, root, "train", notes)
    if not rows:
        raise DatasetError(f"{root}: no images in class folders; expected {root.name}/CLASS/IMAGE")
    _tell_of_strays(root, [root], notes)
    if not any(row.path.exists() for row in rows):  # which images are the same decides how they are split
        raise DatasetAbsentError(
            f"{root}: none of the {len(rows)} images is there, they are links that lead nowhere: fetch what they "
            "point to"
        )
    return seeded_split(rows, test_fraction, seed, notes), notes


def _check_level(root: Path, folders: list[Path]) -> None:
    """Refuse splits that would be taken for classes: unusual names, or a level further down."""
    names = [folder.name for folder in folders]
    unusual = [name for name in names if name.lower() not in SPLIT_NAMES]
    if len(names) > 1 and unusual and all(SPLIT_LIKE.fullmatch(name) for name in names):
        raise DatasetError(
            f"{root}: {some(names)} look like splits, not like classes; call them train, validation and test"
        )
    alone = len(folders) == 1 and unusual
    below = [folder.name for folder in _subfolders(folders[0])] if alone else []
    if any(name.lower() in SPLIT_NAMES for name in below):
        raise DatasetError(f"{root}: the splits ({some(below)}) lie one level down; give {folders[0]}")


def _subfolders(folder: Path) -> list[Path]:
    """Folders directly below, sorted by name, hidden ones left out; names must be UTF-8."""
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p.name))
    for path in found:
        _check_name(path)
    return found


def _hidden(name: str) -> bool:
    """Whether a name is none that people gave: hidden, or what macOS puts beside an archive's folders."""
    return name.startswith(".") or name == "__MACOSX"


def _check_name(path: Path) -> None:
    """Refuse a name that no csv, JSON or HDF5 can carry."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DatasetError(f"{str(path)!a}: the name is not UTF-8; rename the file") from error


def _class_rows(root: Path, parent: Path, split: SplitName, notes: list[str]) -> list[Row]:
    """Rows of all class folders of one parent, sorted by class and path."""
    rows: list[Row] = []
    skipped, empty = [], []
    for folder in _subfolders(parent):
        before = len(rows)
        for path in _files(folder):
            _check_name(path)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                rows.append(Row(path.relative_to(root).as_posix(), path, folder.name, split))
            else:
                skipped.append(path.relative_to(root).as_posix())
        if len(rows) == before:
            empty.append(folder.relative_to(root).as_posix())
    if skipped and not rows:
        raise DatasetError(
            f"{parent}: no file has the suffix of an image (.jpg, .png, .webp, .tif, ...), but {some(skipped)}; "
            "convert or rename them"
        )
    if skipped:
        notes.append(f"{len(skipped)} files without an image suffix are not part of the set: {some(skipped)}")
    if empty:
        notes.append(f"{len(empty)} class folders hold no images: {some(empty)}")
    return rows


def _files(folder: Path) -> list[Path]:
    """What lies in a folder at any depth and is not hidden; a link that leads nowhere is a file that lacks."""
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.is_file() or (path.is_symlink() and not path.exists()))
        and not any(_hidden(part) for part in path.relative_to(folder).parts)
    )


def _tell_of_strays(root: Path, levels: list[Path], notes: list[str]) -> None:
    """Say which images lie beside the class folders, where they have no class."""
    strays = sorted(
        path.relative_to(root).as_posix()
        for level in levels
        for path in level.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not _hidden(path.name)
    )
    if strays:
        notes.append(
            f"{len(strays)} images lie in no class folder and are not part of the set: {some(strays)}"
        )


def seeded_split(rows: list[Row], fraction: float, seed: int, notes: list[str]) -> list[Row]:
    """Hold a stratified share of single-label rows out as test; byte-identical images stay on one side."""
    classes = sorted({row.label for row in rows})
    labels = np.array([classes.index(row.label) for row in rows], dtype=np.int64)
    _, held = hold_out(labels, fraction, seed=seed, image_sha256=_identity(rows))
    test = set(held.tolist())
    notes.append(
        f"no split folders: {len(test)} of {len(rows)} images held out as test, stratified by class, "
        f"fraction {fraction:g}, seed {seed}"
    )
    return [replace(row, split="test") if i in test else row for i, row in enumerate(rows)]


def _identity(rows: list[Row]) -> list[str]:
    """Hash the files that share their size with another one; a size of its own makes a file unique."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        with contextlib.suppress(OSError):  # what is not there is told with all the other mistakes
            by_size[row.path.stat().st_size].append(i)
    identity = [""] * len(rows)
    for members in by_size.values():
        if len(members) > 1:
            for i in members:
                identity[i] = hashlib.sha256(rows[i].path.read_bytes()).hexdigest()
    return identity
