"""The disk that a study will take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, Store
from pipeline import footprint
from pipeline.config import Study
from pipeline.estimates import estimate
from pipeline.footprint import Footprint, entry_bytes, too_little_disk
from pipeline.plan import plan
from pipeline.run import run


@pytest.mark.parametrize(
    ("rows", "dimension", "classes", "name"),
    [
        (40, 1280, 3, "{}.jpg"),
        (6, 4, 2, "{}"),
        (700, 512, 10, "train/class/{:06}.jpg"),
        (2000, 16, 5, "a/longer/path/to/an/image/{:06}.jpeg"),
        (300, 2048, 40, "{:04}.png"),
    ],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_an_entry_is_as_large_as_was_said(
    tmp_path: Path, rows: int, dimension: int, classes: int, name: str, multi_label: bool
) -> None:
    ids = [name.format(i) for i in range(rows)]
    names = [f"class {k}" for k in range(classes)]
    key = CacheKey.from_ingredients(
        {
            "backbone": "net",
            "recipe_version": 1,
            "preprocessing": {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            "samples": [[id_, f"{i:064x}"] for i, id_ in enumerate(ids)],
            "weights_sha256": "0" * 64,
        }
    )
    metadata = {
        "coordinates": {"backbone": "net", "dataset": "d", "split": "train"},
        "class_names": names,
        "multi_label": multi_label,
        "expected_rows": rows,
    }
    labels = np.zeros((rows, classes), np.int8) if multi_label else np.arange(rows) % classes
    with Store(tmp_path).writer(key, metadata) as writer:
        features = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
        writer.append(features, labels, ids, stop=rows, row_metadata={"group": [None] * rows})
        entry = writer.publish()
    (file,) = tmp_path.glob(f"entries/*/{entry.key.digest}.h5")
    said = entry_bytes(ids, dimension, names, multi_label=multi_label)
    assert said == pytest.approx(file.stat().st_size, rel=0.03)


def test_the_cache_takes_what_the_plan_says(workshop) -> None:
    workshop.images(train=40, test=20)
    study = workshop.load()
    said = estimate(plan(study)).disk.features
    backbone = plan(study).resolved.backbones[0]
    for planned in plan(study).to_run("extract"):  # with features as wide as the network's
        store_features(planned.job, backbone.dimension)
    taken = sum(path.stat().st_size for path in features_folder().rglob("*.h5"))
    assert said == pytest.approx(taken, rel=0.03)
    assert estimate(plan(study)).disk.features == 0  # what is there is not written again


def test_results_take_what_the_plan_says(workshop) -> None:
    """Record, scores of 300 test images, coefficients."""
    workshop.images(classes=("blue", "green", "red"), test=100)
    study = workshop.load()
    current = plan(study)
    said = estimate(current, stages=("probe",)).disk.results
    for planned in current.to_run("extract"):
        store_features(planned.job, current.resolved.backbones[0].dimension)
    run(study, ("probe",), workers=1)
    taken = sum(path.stat().st_size for path in (study.output / "results").rglob("*.*"))
    assert taken < said < 3 * taken  # "at most"
    assert estimate(plan(study)).disk.results == 0


def features_folder() -> Path:
    return Path(os.environ["PENULTIMATE_CACHE"]) / "features"


def store_features(job: Any, dimension: int) -> None:
    from pipeline.entry_facts import key_of, metadata_of

    rows = len(job.split)
    with Store(features_folder()).writer(key_of(job), {**metadata_of(job), "expected_rows": rows}) as writer:
        features = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
        none = {"group": [None] * rows}
        writer.append(features, job.split.labels, list(job.split.ids), stop=rows, row_metadata=none)
        writer.publish()


def test_a_disk_that_is_too_small_is_told_in_one_line(tmp_path: Path, monkeypatch) -> None:
    need = Footprint(features=3_000_000, results=1_000_000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _folder: usage._replace(free=3_500_000))
    (line,) = too_little_disk(need, tmp_path / "not" / "there", tmp_path / "out")
    assert "about 4.0 MB" in line
    assert "3.5 MB are free" in line
    assert too_little_disk(Footprint(features=3_000_000), tmp_path, tmp_path) == []


def test_a_run_warns_of_a_small_disk_before_it_starts(cached: Study, penultimate, monkeypatch) -> None:
    usage = shutil.disk_usage(cached.folder)
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _folder: usage._replace(free=1))
    ran = penultimate("probe", cached.file)
    assert ran.status == 0
    lines = ran.err.splitlines()
    (warned,) = [k for k, line in enumerate(lines) if line.startswith("warning: disk: about")]
    assert warned < min(k for k, line in enumerate(lines) if line.startswith("probe/"))
