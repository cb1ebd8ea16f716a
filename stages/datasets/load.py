"""The door to data sets: a source in words, a `Dataset` out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from stages.datasets.build import build_dataset
from stages.datasets.csv_source import has_class_columns, read_csv_rows
from stages.datasets.folder_source import read_folder_rows
from stages.datasets.hf_source import read_hf_rows
from stages.datasets.manifest import FILE, check_manifest
from stages.datasets.packaged import PACKAGED, packaged_csv
from stages.datasets.paper import SUBSET, check_sizes, find_release, read_paper_rows, with_validation
from stages.datasets.paper_sets import PAPER_SETS
from stages.datasets.rows import Row
from stages.datasets.voc import read_voc_rows
from stages.datasets.wds_source import read_wds_rows
from stages.errors import DatasetAbsentError, DatasetError
from stages.names import did_you_mean
from stages.records import Dataset, Metric, Progress, untold

SOURCES = ("csv", "folder", "packaged", "paper", "hf", "wds", "voc")
"""What may stand before the colon of a source."""


@dataclass(frozen=True)
class Request:
    """How a data set is to be read."""

    base: Path
    """What relative paths are relative to."""
    unpack_to: Path
    """Where images that come packed are written on first use."""
    root: Path | None = None
    """Where releases of the paper's data sets lie; default $PENULTIMATE_DATASETS."""
    test_fraction: float = 0.2
    split_seed: int = 0
    allow_size_mismatch: bool = False
    image_column: str | None = None
    label_column: str | None = None
    fetch: bool = True
    """Whether the library of ``hf:`` may be asked for what it has not given yet."""
    progress: Progress = untold
    """Told of images that are unpacked."""


@dataclass(frozen=True)
class _Read:
    """What a source gave."""

    rows: list[Row]
    where: str
    manifest: Path | None = None
    """Where a manifest would lie beside the images."""
    notes: list[str] = field(default_factory=list)
    multi_label: bool | None = None
    paper: str | None = None
    """The paper's data set that this is."""
    if_missing: str = "paths are relative to the csv's folder"


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
    root: Path | str | None = None,
    allow_size_mismatch: bool = False,
    manifest: Path | str | None = None,
    manifest_beside: bool = True,
    image_column: str | None = None,
    label_column: str | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Read a data set's table of files, labels and splits; no image is decoded.

    Parameters
    ----------
    name : str
        What the study calls it.
    source : str, optional
        ``csv:PATH``, ``folder:PATH``, ``packaged:NAME``, ``paper:NAME`` (one of the paper's twelve),
        ``hf:USER/NAME@REVISION``, ``wds:SHARDS`` or ``voc:PATH``. Default: the packaged set, or the paper's,
        called ``name``.
    base : path
        What relative paths are relative to.
    unpack_to : path
        Where images that come packed are written on first use.
    metric : Metric, optional
        Default: the paper's for its own sets; else top_1, and map_11_point for multi-label sets.
    multi_label : bool, optional
        Default: whether any label of a csv or shard holds ``|`` or begins with ``?``; of folders, no.
    test_fraction, split_seed : float, int
        Of the seeded split of images without a test split; the seed is that of Caltech-101's training images
        and of drawn validation sets too.
    root : path, optional
        Where the archives of the paper's data sets were unpacked; default $PENULTIMATE_DATASETS.
    allow_size_mismatch : bool
        Whether the paper's data sets may have other sizes than the paper's.
    manifest : path, optional
        A split manifest to compare with.
    manifest_beside : bool
        Whether to compare with one that lies beside the images, where no other is named.
    image_column, label_column : str, optional
        Of ``hf:``, where the features do not tell.
    fetch : bool
        Whether ``hf:`` may ask the library, and the library the hub, for what was not read before.
    progress : Progress, optional
        Told of images that are unpacked.

    Returns
    -------
    Dataset
        Checked: unique ids, existing files, rows in train and test, every class in train.

    Raises
    ------
    DatasetError
        One line per mistake.
    DatasetAbsentError
        The images are not on this machine; it holds the rows where the table that lists them is.
    MissingExtraError
        ``hf:`` without the library ``datasets``.

    Examples
    --------
    >>> digits = load_dataset("digits", unpack_to=getfixture("tmp_path"))
    >>> len(digits.class_names), len(digits.splits["train"]), len(digits.splits["test"])
    (10, 400, 200)
    """
    request = Request(
        Path(base),
        Path(unpack_to),
        None if root is None else Path(base) / Path(root).expanduser(),
        test_fraction,
        split_seed,
        allow_size_mismatch,
        image_column,
        label_column,
        fetch,
        progress or untold,
    )
    found = _read(name, source, request)
    beside = found.manifest if manifest_beside and found.manifest and found.manifest.is_file() else None
    wanted = beside if manifest is None else Path(base) / manifest
    try:
        dataset = build_dataset(
            name,
            found.rows,
            where=found.where,
            metric=metric or (PAPER_SETS[found.paper].metric if found.paper else None),
            multi_label=found.multi_label if multi_label is None else multi_label,
            notes=[*found.notes, *_other_metric(name, found, metric)],
            if_missing=found.if_missing,
        )
    except DatasetAbsentError as error:
        if error.listed is not None:
            _checked(error.listed, wanted)
        raise
    if found.paper:
        dataset = check_sizes(
            found.paper, dataset, where=found.where, allow_size_mismatch=allow_size_mismatch
        )
    return _checked(dataset, wanted)


def _other_metric(name: str, found: _Read, metric: Metric | None) -> list[str]:
    """Say where a set bears a paper's name and would be scored by another metric, unasked."""
    if found.paper or metric or name not in PAPER_SETS or PAPER_SETS[name].metric == "top_1":
        return []
    usual = PAPER_SETS[name].metric
    return [
        f"called as the paper's {name}, whose metric is {usual}, and scored by another; set metric to choose"
    ]


def _checked(dataset: Dataset, path: Path | None) -> Dataset:
    """Compare with a manifest, where there is one."""
    if path is None:
        return dataset
    digest = check_manifest(dataset, path)
    return replace(dataset, notes=(*dataset.notes, f"equals the manifest {path.name}, sha256 {digest}"))


def _read(name: str, source: str | None, request: Request) -> _Read:
    """Read the rows of a source."""
    kind, _, location = (source or _by_name(name)).partition(":")
    if kind not in SOURCES:
        hint = did_you_mean(kind, SOURCES)
        raise DatasetError(
            f"source {source!r} of dataset {name!r}: {kind!r} is no known kind{hint}; "
            f"expected {', '.join(f'{known}:...' for known in SOURCES)}"
        )
    readers = {"folder": _folder, "paper": _paper, "hf": _hub, "wds": _shards, "voc": _voc}
    if kind in readers:
        return readers[kind](name, location, request)
    packaged = kind == "packaged"
    path = packaged_csv(location, request.unpack_to) if packaged else request.base / location
    rows = read_csv_rows(path)
    one_each = all(row.label and "|" not in row.label and not row.label.startswith("?") for row in rows)
    several = True if has_class_columns(path) and not one_each else None
    return _Read(rows, str(path), path.with_name(f"{path.stem}.manifest.json"), multi_label=several)


def _by_name(name: str) -> str:
    """Return the source of a data set that is known by name."""
    if name in PACKAGED:
        return f"packaged:{name}"
    if name in PAPER_SETS:
        return f"paper:{name}"
    raise DatasetError(
        f"dataset {name!r} is not a packaged set, nor one of the paper's"
        f"{did_you_mean(name, [*PACKAGED, *PAPER_SETS])}; "
        'give a source = "csv:..." or "folder:..." (penultimate datasets lists all)'
    )


def _folder(_name: str, location: str, request: Request) -> _Read:
    """Read ``folder:``."""
    path = request.base / location
    rows, notes = read_folder_rows(path, test_fraction=request.test_fraction, seed=request.split_seed)
    lacking = "links that lead nowhere: fetch what they point to"
    return _Read(rows, str(path), path / FILE, notes, multi_label=False, if_missing=lacking)


def _paper(_name: str, location: str, request: Request) -> _Read:
    """Read ``paper:``."""
    if location not in PAPER_SETS:
        hint = did_you_mean(location, PAPER_SETS)
        raise DatasetError(
            f"paper:{location}: no such data set of the paper{hint}; known: {', '.join(PAPER_SETS)}"
        )
    home = find_release(location, request.root)
    rows, notes = read_paper_rows(
        location,
        home,
        unpack_to=request.unpack_to,
        seed=request.split_seed,
        allow_size_mismatch=request.allow_size_mismatch,
        progress=request.progress,
    )
    what_now = f"unpack {PAPER_SETS[location].archives} again; {SUBSET}"
    several = PAPER_SETS[location].metric == "map_11_point"
    return _Read(rows, str(home), home / FILE, notes, several, location, what_now)


def _hub(name: str, location: str, request: Request) -> _Read:
    """Read ``hf:``."""
    rows, notes, several = read_hf_rows(
        location,
        request.base,
        unpack_to=request.unpack_to,
        image_column=request.image_column,
        label_column=request.label_column,
        test_fraction=request.test_fraction,
        seed=request.split_seed,
        fetch=request.fetch,
        progress=request.progress,
    )
    return _named_as_the_papers(name, _Read(rows, f"hf:{location}", None, notes, several), request)


def _shards(name: str, location: str, request: Request) -> _Read:
    """Read ``wds:``."""
    rows = read_wds_rows(location, request.base, unpack_to=request.unpack_to, progress=request.progress)
    return _named_as_the_papers(name, _Read(rows, f"wds:{location}"), request)


def _named_as_the_papers(name: str, found: _Read, request: Request) -> _Read:
    """Let a name of the paper's stand for its sizes, metric and validation set, wherever the images come from."""
    if name not in PAPER_SETS:
        return found
    rows = with_validation(name, found.rows, request.split_seed, found.notes)
    return replace(found, rows=rows, paper=name)


def _voc(_name: str, location: str, request: Request) -> _Read:
    """Read ``voc:``."""
    path = request.base / location
    return _Read(read_voc_rows(path), str(path), path / FILE, multi_label=True)
