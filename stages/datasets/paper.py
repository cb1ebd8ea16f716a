"""``paper:`` sources: one of the paper's twelve data sets, from its official release on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from stages.datasets.drawn import hold_validation_out
from stages.datasets.official import Release
from stages.datasets.paper_sets import PAPER_SETS, PaperSet
from stages.datasets.rows import Row, some
from stages.errors import DatasetAbsentError, DatasetError
from stages.records import Dataset, Progress, untold

ROOT_VARIABLE = "PENULTIMATE_DATASETS"
SUBSET = "allow_size_mismatch = true reads what is there"


def read_paper_rows(
    name: str,
    home: Path,
    *,
    unpack_to: Path,
    seed: int,
    allow_size_mismatch: bool,
    progress: Progress = untold,
) -> tuple[list[Row], list[str]]:
    """Read one of the paper's data sets from its official release.

    Parameters
    ----------
    name : str
        A key of `PAPER_SETS`.
    home : Path
        From `find_release`.
    unpack_to : Path
        Where images that come packed (CIFAR) are written.
    seed : int
        Of what the release leaves to chance: Caltech's training images, validation sets.
    allow_size_mismatch : bool
        Leave out, and tell, images that are listed and not there.
    progress : Progress
        Told of what takes long.

    Returns
    -------
    rows : list of Row
        By split, sorted by id (by code point).
    notes : list of str

    Raises
    ------
    DatasetError
        The release is there in part, or damaged.
    """
    facts = PAPER_SETS[name]
    release = Release(name, home, unpack_to, facts.archives, seed, progress=progress)
    rows = sorted(facts.read(release), key=lambda row: row.id)
    if allow_size_mismatch:
        rows = _those_there(rows, release.notes)
    return with_validation(name, rows, seed, release.notes), release.notes


def with_validation(name: str, rows: list[Row], seed: int, notes: list[str]) -> list[Row]:
    """Draw the validation set where no official one is told apart, of its size or of the size that others used.

    Parameters
    ----------
    name : str
        A key of `PAPER_SETS`.
    rows : list of Row
        Returned as they are where there are rows of a validation set, and where images bear several labels.
    seed : int
        Of the draw.
    notes : list of str
        What was done is added.
    """
    facts = PAPER_SETS[name]
    if any(row.split == "validation" for row in rows):
        return rows
    if facts.official_validation and facts.metric == "map_11_point":
        return rows  # several labels an image: no draw of ours is stratified by them
    rows = hold_validation_out(rows, Fraction(facts.validation, facts.train), seed)
    held = sum(row.split == "validation" for row in rows)
    merged = "the official validation set is not told apart here"
    why = merged if facts.official_validation else "no official validation set"
    notes.append(f"{why}: {held} training images held out, stratified by class, seed {seed}")
    return rows


def find_release(name: str, root: Path | None) -> Path:
    """Return the folder that a release lies in.

    Parameters
    ----------
    name : str
        A key of `PAPER_SETS`.
    root : Path, optional
        The folder that the archives were unpacked in, or the release's own; default $PENULTIMATE_DATASETS.

    Raises
    ------
    DatasetAbsentError
        The release is not on this machine: what was expected where, and where it can be had.
    DatasetError
        It is there in part.
    """
    facts = PAPER_SETS[name]
    if root is None and not os.environ.get(ROOT_VARIABLE):
        raise DatasetAbsentError(_absent(name, f"ROOT/{facts.homes[0]}", f"; {_how_to_say_where()}"))
    root = root or Path(os.environ[ROOT_VARIABLE]).expanduser()
    if not root.is_dir():
        raise DatasetAbsentError(f"{root}: no such folder; {_absent(name, str(root / facts.homes[0]))}")
    places = [*(root / home for home in facts.homes), root / name, root]
    whole = [place for place in places if not _lacking(place, facts)]
    if whole:
        return whole[0]
    begun = [p for p in places if p.is_dir() and (p != root or len(_lacking(p, facts)) < len(facts.needs))]
    if begun:
        lacking = begun[0] / _lacking(begun[0], facts)[0].partition("|")[0]
        raise DatasetError(f"{lacking}: not there, the release is incomplete; unpack {facts.archives} again")
    raise DatasetAbsentError(_absent(name, str(root / facts.homes[0])))


def _lacking(place: Path, facts: PaperSet) -> list[str]:
    """Return what a folder lacks of what the release is told by."""
    return [need for need in facts.needs if not any((place / choice).exists() for choice in need.split("|"))]


def _how_to_say_where() -> str:
    """Say how a root is given."""
    return f'name ROOT by root = "..." in [[dataset]], or by ${ROOT_VARIABLE}'


def _absent(name: str, place: str, more: str = "") -> str:
    """Say what was expected where, and where it can be had."""
    facts = PAPER_SETS[name]
    hub = ""
    if facts.hub:
        lacks = "" if facts.hub.complete else f", which lacks images: {SUBSET}"
        hub = f' (source = "{facts.hub.source}" reads the copy on the Hugging Face hub{lacks})'
    what = facts.needs[0].partition("|")[0]
    return (
        f"{name} is not on this machine: expected {what} in {place}{more}; "
        f"fetch {facts.archives} from {facts.fetch}{hub}"
    )


def _those_there(rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """Leave out the images that are listed and not there, where any is."""
    there = [row for row in rows if row.path.is_file()]
    missing = [row.id for row in rows if not row.path.is_file()] if len(there) < len(rows) else []
    if not there or not missing:
        return list(rows)
    notes.append(f"{len(missing)} of {len(rows)} listed images are not there and left out: {some(missing)}")
    return there


def check_sizes(name: str, dataset: Dataset, *, where: str, allow_size_mismatch: bool) -> Dataset:
    """Compare a data set's counts with the paper's.

    Parameters
    ----------
    name : str
        A key of `PAPER_SETS`.
    dataset : Dataset
        As read.
    where : str
        The source, for messages.
    allow_size_mismatch : bool
        Whether other counts are a note rather than a mistake.

    Raises
    ------
    DatasetError
        Any count differs; both are shown.
    """
    facts = PAPER_SETS[name]
    sizes = {split: len(rows) for split, rows in dataset.splits.items()}
    counts = {
        "classes": (len(dataset.class_names), facts.classes),
        "images to train and validate on": (sizes["train"] + sizes.get("validation", 0), facts.train),
        "test images": (sizes["test"], facts.test),
    }
    if facts.official_validation and "validation" in sizes:
        counts["validation images"] = (sizes["validation"], facts.validation)
    other = [f"{found} {what} (expected {due})" for what, (found, due) in counts.items() if found != due]
    if not other:
        return dataset
    if not allow_size_mismatch:
        raise DatasetError(f"{where}: not the {name} of the paper: {', '.join(other)}; {SUBSET}")
    return replace(
        dataset, notes=(*dataset.notes, f"sizes differ from the paper's, as allowed: {', '.join(other)}")
    )
