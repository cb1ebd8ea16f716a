"""Taking features in: an entry that somebody exported, or somebody's own features with their labels."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache import Entry, Store
from cache.errors import one_line
from pipeline.coordinates import refuse_figures
from pipeline.errors import StudyError
from pipeline.provenance import provenance
from stages.names import did_you_mean
from stages.records import SPLITS


def imported(
    store: Store,
    file: Path,
    labels: Path | None,
    coordinates: Mapping[str, str],
    hdf5_dataset: str,
    classes: str | None,
    multi_label: bool = False,
) -> dict[str, Any]:
    """Take in an exported entry, or somebody's own features with their labels."""
    _refuse_other_files(file, labels)
    if labels is None:
        return _entry(store, file)
    from cache.annotations import read_labels
    from cache.foreign import import_features, import_hdf5

    _refuse_coordinates(coordinates)
    refuse_figures(coordinates)
    before = store.find(**{name: coordinates[name] for name in ("backbone", "dataset", "split")})
    class_names = classes.split("|") if classes else None
    annotations = read_labels(labels, class_names=class_names, multi_label=multi_label)
    if file.suffix == ".npy":
        entry = import_features(store, file, annotations, dict(coordinates), provenance())
    else:
        entry = import_hdf5(
            store, file, annotations, dict(coordinates), dataset=hdf5_dataset, provenance=provenance()
        )
    key = entry.key.digest
    _tell_of_others(store, entry, coordinates)
    rounded = entry.key.ingredients["rounded_from"]
    if rounded is not None:
        store.notify(f"note: {file.name}: {rounded} is rounded to float32")
    return {
        "key": key,
        "status": "already here" if key in {info.key for info in before} else "added",
        "rows": len(entry.ids),
        "classes": len(annotations.class_names),
        "rounded_from": rounded,
        "deviation": 0.0,
    }


def _refuse_other_files(file: Path, labels: Path | None) -> None:
    """Refuse features without labels, and coordinates for what says itself what it is."""
    if labels is not None and "=" in labels.name and not labels.exists():
        raise StudyError(
            f"{one_line(str(labels))}: no csv of labels: an exported entry says itself what it is, import it without "
            "coordinates; features of your own need theirs: FILE LABELS NAME=VALUE..."
        )
    if labels is None and file.suffix in (".npy", ".npz", ".csv"):
        name = one_line(shlex.quote(str(file)))
        raise StudyError(f"{name}: features need their labels: cache import {name} labels.csv backbone=...")


def _entry(store: Store, file: Path) -> dict[str, Any]:
    """Take in an exported entry."""
    from cache.hand_over import import_entry

    admission = import_entry(store, file)
    return {
        "key": admission.entry.key.digest,
        "status": admission.status,
        "rows": len(admission.entry.ids),
        "deviation": admission.deviation if math.isfinite(admission.deviation) else None,
    }


def _refuse_coordinates(coordinates: Mapping[str, str]) -> None:
    """Refuse coordinates by which nobody would find an entry."""
    lacking = [name for name in ("backbone", "dataset", "split") if name not in coordinates]
    if lacking:
        raise StudyError(f"say {' '.join(f'{name}=...' for name in lacking)}: entries are found by these")
    if coordinates["split"] not in SPLITS:
        hint = did_you_mean(coordinates["split"], SPLITS)
        raise StudyError(f"split={coordinates['split']!r} is not train, validation or test{hint}")


def _tell_of_others(store: Store, entry: Entry, coordinates: Mapping[str, str]) -> None:
    """Say which entries beside an imported one a study cannot tell from it, or use together with it."""
    split, width = coordinates["split"], entry.features.shape[1]
    for info in store.find(backbone=coordinates["backbone"], dataset=coordinates["dataset"]):
        key = info.key[:12]
        if info.key != entry.key.digest and info.coordinates["split"] == split:
            store.notify(
                f"note: {key} is of the same backbone, data set and split, so a study has to say which is meant; "
                f"`penultimate cache remove {key}` takes it out"
            )
        elif info.dimension != width:
            store.notify(
                f"note: {key} ({info.coordinates['split']}) has {info.dimension} columns, this one {width}: no probe "
                "takes both; import splits of one network under one backbone=..."
            )
