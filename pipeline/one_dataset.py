"""One data set by itself: read as a study would read it, described, its split manifest written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.cache_folder import cache_root
from pipeline.config import Study, load_study
from pipeline.duplicates import class_counts
from pipeline.errors import StudyError, SurroundingsError
from pipeline.resolve import read_dataset
from pipeline.tables import DatasetTable
from stages.datasets import manifest_of, write_manifest
from stages.names import did_you_mean
from stages.records import Dataset, Progress


def described(
    name: str,
    *,
    study: Path | None = None,
    source: str | None = None,
    root: Path | None = None,
    allow_size_mismatch: bool = False,
    manifest: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read a data set and say what it is.

    Parameters
    ----------
    name : str
        Known by name, or the name of a ``[[dataset]]`` of the study.
    study : Path, optional
        A study file that describes it; then source and root must not be given.
    source, root, allow_size_mismatch : optional
        As in a study; paths are relative to the working folder.
    manifest : Path, optional
        Where to write the split manifest.
    progress : Progress, optional
        Told of images that are unpacked.

    Returns
    -------
    dict
        JSON values: name, metric, multi_label, class_names, splits (images of each), images_of_class (of each
        split, in the order of class_names), notes, sha256 of the manifest, and where it was written.

    Raises
    ------
    StudyError
        The study has no such data set, or something was said twice.
    DatasetError
        The data set cannot be read.
    SurroundingsError
        The manifest cannot be written.
    """
    given = {
        "source": source,
        "root": str(root) if root else None,
        "allow_size_mismatch": allow_size_mismatch,
    }
    if study is not None and any(given.values()):
        raise StudyError("--study says where the data come from: leave --source, --root and the rest out")
    if study is not None:
        loaded = load_study(study)
        table, folder = _table(name, loaded, study), loaded.folder
    else:
        table = DatasetTable.model_validate({"name": name} | {k: v for k, v in given.items() if v})
        folder = Path.cwd()
    # What is to be written anew is not compared with what it replaces.
    dataset = read_dataset(
        table.model_copy(update={"manifest": None}) if manifest else table,
        folder,
        cache_root(),
        beside=manifest is None,
        progress=progress,
    )
    return _facts(dataset, manifest)


def _table(name: str, study: Study, file: Path) -> DatasetTable:
    """Return the table of a study's data set."""
    tables = {table.name: table for table in study.dataset}
    if name not in tables:
        raise StudyError(
            f"{file}: no dataset is called {name!r}{did_you_mean(name, tables)}; it has {list(tables)}"
        )
    if tables[name].source == "cached":
        raise StudyError(f"{file}: {name!r} is known by cached features only; its images cannot be shown")
    return tables[name]


def _facts(dataset: Dataset, manifest: Path | None) -> dict[str, Any]:
    """Describe a data set, and write its manifest where one is wanted."""
    facts: dict[str, Any] = {
        "name": dataset.name,
        "metric": dataset.metric,
        "multi_label": dataset.multi_label,
        "class_names": list(dataset.class_names),
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "images_of_class": {
            name: class_counts(split, dataset).tolist() for name, split in dataset.splits.items()
        },
        "notes": list(dataset.notes),
    }
    if manifest is None:
        return facts | {"sha256": manifest_of(dataset)["sha256"]}
    try:
        digest = write_manifest(dataset, manifest)
    except OSError as error:
        raise SurroundingsError(
            f"{manifest}: cannot be written ({error.strerror}); choose another file"
        ) from error
    return facts | {"sha256": digest, "manifest": str(manifest)}


def describe_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row a split."""
    return [
        {
            "split": name,
            "images": images,
            "smallest class": min(facts["images_of_class"][name]),
            "largest class": max(facts["images_of_class"][name]),
        }
        for name, images in facts["splits"].items()
    ]
