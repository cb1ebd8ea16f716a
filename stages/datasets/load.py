"""The door to data sets: a source in words, a `Dataset` out."""

from __future__ import annotations

from pathlib import Path

from stages.datasets.csv_source import read_csv_rows
from stages.datasets.folder_source import read_folder_rows
from stages.datasets.packaged import PACKAGED, packaged_csv
from stages.datasets.rows import build_dataset
from stages.errors import DatasetError
from stages.names import did_you_mean
from stages.records import Dataset, Metric

SOURCES = ("csv", "folder", "packaged")
"""What may stand before the colon of a source."""


def load_dataset(
    name: str,
    source: str | None = None,
    *,
    base: Path | str = ".",
    unpack_to: Path | str,
    metric: Metric | None = None,
    multi_label: bool | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """Read a data set's table of files, labels and splits; no image is opened.

    Parameters
    ----------
    name : str
        What the study calls it.
    source : str, optional
        ``csv:PATH``, ``folder:PATH`` or ``packaged:NAME``. Default: the packaged set called ``name``.
    base : path
        What relative paths are relative to.
    unpack_to : path
        Where packaged sets are written on first use.
    metric : Metric, optional
        Default: top_1; map_11_point for multi-label sets.
    multi_label : bool, optional
        Default: whether any label holds ``|`` or begins with ``?``.
    test_fraction, split_seed : float, int
        Of the seeded split of a folder without split folders.

    Returns
    -------
    Dataset
        Checked: unique ids, existing files, rows in train and test, every class in train.

    Raises
    ------
    DatasetError
        One line per mistake.

    Examples
    --------
    >>> digits = load_dataset("digits", unpack_to=getfixture("tmp_path"))
    >>> len(digits.class_names), len(digits.splits["train"]), len(digits.splits["test"])
    (10, 400, 200)
    """
    kind, _, location = (source or f"packaged:{name}").partition(":")
    if kind not in SOURCES:
        hint = did_you_mean(kind, SOURCES)
        raise DatasetError(
            f"source {source!r} of dataset {name!r}: {kind!r} is no known kind{hint}; "
            f"expected {', '.join(f'{known}:...' for known in SOURCES)}"
        )
    if not source and name not in PACKAGED:
        raise DatasetError(
            f"dataset {name!r} is not a packaged set{did_you_mean(name, PACKAGED)}; "
            'give a source = "csv:..." or "folder:..."'
        )
    notes: list[str] = []
    if kind == "folder":
        path = Path(base) / location
        rows, notes = read_folder_rows(path, test_fraction=test_fraction, seed=split_seed)
    else:
        path = packaged_csv(location, Path(unpack_to)) if kind == "packaged" else Path(base) / location
        rows = read_csv_rows(path)
    return build_dataset(name, rows, where=str(path), metric=metric, multi_label=multi_label, notes=notes)
