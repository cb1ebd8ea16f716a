"""``folder:`` sources: split folders of class folders, or class folders alone with a seeded split."""

from __future__ import annotations

import hashlib
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
    by_split = {folder: SPLIT_NAMES[folder.name] for folder in folders if folder.name in SPLIT_NAMES}
    if by_split and len(by_split) < len(folders):
        others = [folder.name for folder in folders if folder not in by_split]
        raise DatasetError(
            f"{root}: split folders ({some([f.name for f in by_split])}) beside {some(others)}; "
            "keep either split folders or class folders on this level"
        )
    notes: list[str] = []
    if by_split:
        if len(set(by_split.values())) < len(by_split):
            names = some(sorted(f.name for f in by_split if by_split[f] == "validation"))
            raise DatasetError(f"{root}: {names} are names of one split; merge the folders into validation/")
        rows = [row for f, split in by_split.items() for row in _class_rows(root, f, split, notes)]
        return rows, notes
    rows = _class_rows(root, root, "train", notes)
    if not rows:
        raise DatasetError(f"{root}: no images in class folders; expected {root.name}/CLASS/IMAGE")
    return seeded_split(rows, test_fraction, seed, notes), notes


def _subfolders(folder: Path) -> list[Path]:
    """Folders directly below, sorted by name, hidden ones left out; names must be UTF-8."""
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for path in found:
        _check_name(path)
    return found


def _check_name(path: Path) -> None:
    """Refuse a name that no csv, JSON or HDF5 can carry."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DatasetError(f"{str(path)!a}: the name is not UTF-8; rename the file") from error


def _class_rows(root: Path, parent: Path, split: SplitName, notes: list[str]) -> list[Row]:
    """Rows of all class folders of one parent, sorted by class and path."""
    rows, skipped = [], []
    for folder in _subfolders(parent):
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            _check_name(path)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                rows.append(Row(path.relative_to(root).as_posix(), path, folder.name, split))
            else:
                skipped.append(path.relative_to(root).as_posix())
    if skipped:
        notes.append(f"{len(skipped)} files without an image suffix are not part of the set: {some(skipped)}")
    return rows


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
        by_size[row.path.stat().st_size].append(i)
    identity = [""] * len(rows)
    for members in by_size.values():
        if len(members) > 1:
            for i in members:
                identity[i] = hashlib.sha256(rows[i].path.read_bytes()).hexdigest()
    return identity
