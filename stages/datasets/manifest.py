"""Split manifests: which image bears which label in which split, in order, frozen in a file.

A manifest is JSON: ``format``, ``name``, ``class_names``, ``multi_label``, ``splits`` (for each split ``ids``,
``labels`` as text, and ``groups`` where there are any) and ``sha256``, the hash of all that as canonical JSON. The
hash depends on nothing else, so that two people compare their splits by comparing two lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stages.errors import DatasetError
from stages.records import Dataset, Split

FORMAT = "penultimate split manifest 1"
FILE = "penultimate-manifest.json"
"""Beside the images it is found and checked without being named."""


def manifest_of(dataset: Dataset) -> dict[str, Any]:
    """Return a data set's manifest as JSON values.

    Parameters
    ----------
    dataset : Dataset
        As `load_dataset` returns it.

    Examples
    --------
    >>> from stages.datasets import load_dataset
    >>> manifest = manifest_of(load_dataset("digits", unpack_to=getfixture("tmp_path")))
    >>> manifest["splits"]["train"]["ids"][0], manifest["splits"]["train"]["labels"][0]
    ('0_000.pgm', '0')
    >>> len(manifest["sha256"])
    64
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": dataset.name,
        "class_names": list(dataset.class_names),
        "multi_label": dataset.multi_label,
        "splits": {name: _split(split, dataset) for name, split in dataset.splits.items()},
    }
    return content | {"sha256": _hash(content)}


def _split(split: Split, dataset: Dataset) -> dict[str, list[str]]:
    """Return the rows of one split."""
    rows = {"ids": list(split.ids), "labels": label_texts(split.labels, dataset.class_names)}
    return rows | ({"groups": list(split.groups)} if split.groups else {})


def label_texts(labels: NDArray[Any], class_names: Sequence[str]) -> list[str]:
    """Return each row's label as a csv would write it: "rose", or "desert|?sea" where multi-label."""
    if labels.ndim == 1:
        return [class_names[k] for k in labels]
    marks = {1: "", -1: "?"}
    return [
        "|".join(marks[value] + class_names[k] for k, value in enumerate(row) if value)
        for row in labels.tolist()
    ]


def _hash(content: Mapping[str, Any]) -> str:
    """Hash what a manifest says, not what it is called."""
    said = {key: value for key, value in content.items() if key not in ("sha256", "name")}
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(dataset: Dataset, path: Path) -> str:
    """Write a data set's manifest and return its hash; a file that is there is replaced whole.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    manifest = manifest_of(dataset)
    handle, staging = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(manifest, file, ensure_ascii=False, indent=1)
            file.write("\n")
        Path(staging).chmod(0o644)
        Path(staging).replace(path)
    finally:
        Path(staging).unlink(missing_ok=True)
    return str(manifest["sha256"])


def check_manifest(dataset: Dataset, path: Path) -> str:
    """Compare a data set with a manifest, and return the manifest's hash.

    Parameters
    ----------
    dataset : Dataset
        As it was read.
    path : Path
        Of the manifest.

    Raises
    ------
    DatasetError
        The file is no manifest, was altered, or says something else: the first difference is named.
    """
    wanted = _read(path)
    found = manifest_of(dataset)
    difference = _difference(wanted, found)
    if difference:
        raise DatasetError(
            f"{path}: {dataset.name} is not what the manifest says: {difference}; mend the data, or write the "
            f"manifest again if the change is meant (penultimate datasets show)"
        )
    return str(found["sha256"])


def _read(path: Path) -> dict[str, Any]:
    """Return a manifest that is whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(
            f"{path}: the manifest cannot be read ({error.strerror}); correct its path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error}); write the manifest again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DatasetError(
            f"{path}: not a {FORMAT!r}; penultimate datasets show NAME --manifest FILE writes one"
        )
    if content.get("sha256") != _hash(content) or not _whole(content):
        raise DatasetError(
            f"{path}: the manifest was altered, it does not match its own sha256; write it again"
        )
    return content


def _whole(content: Mapping[str, Any]) -> bool:
    """Whether a manifest has the parts of one, each of its kind."""
    splits = content.get("splits")
    return (
        isinstance(content.get("class_names"), list)
        and isinstance(splits, dict)
        and all(
            isinstance(rows, dict) and all(isinstance(rows.get(key), list) for key in ("ids", "labels"))
            for rows in splits.values()
        )
    )


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Say where two manifests first differ; nothing where they are equal."""
    if wanted["sha256"] == found["sha256"]:
        return ""
    if sorted(wanted["splits"]) != sorted(found["splits"]):
        return f"its splits are {sorted(wanted['splits'])}, found {sorted(found['splits'])}"
    for split, rows in wanted["splits"].items():
        here = found["splits"][split]
        for key, what in (("ids", "id"), ("labels", "label"), ("groups", "group")):
            place = _first(rows.get(key, []), here.get(key, []))
            if place is not None:
                number, due, is_ = place
                whose = "" if key == "ids" else f" of {rows['ids'][number]!r}"
                return f"{split}, row {number + 1}: the {what}{whose} is {due!r} there, {is_!r} here"
    names = _first(wanted["class_names"], found["class_names"])
    if names is not None:
        return f"class {names[0] + 1} is {names[1]!r} there, {names[2]!r} here"
    return "one is multi-label, the other is not"


def _first(wanted: Sequence[Any], found: Sequence[Any]) -> tuple[int, Any, Any] | None:
    """Return place and values of the first difference; nothing stands where a list has ended."""
    for number, (due, is_) in enumerate(zip_longest(wanted, found, fillvalue="nothing")):
        if due != is_:
            return number, due, is_
    return None
