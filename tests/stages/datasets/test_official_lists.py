"""The paper's data sets against the official lists themselves."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from scipy.io import savemat

from stages.datasets import PAPER_SETS
from stages.datasets.listed_sets import birdsnap, oxford_pets
from stages.datasets.mat_sets import flowers102, stanford_cars
from stages.datasets.official import Release
from stages.datasets.voc import voc2007
from stages.errors import DatasetError
from tests.stages.datasets import releases

TEST_DATA = os.environ.get("PENULTIMATE_TEST_DATA")
REFERENCE = Path(TEST_DATA).parent / "reference" if TEST_DATA else Path("nowhere")
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "splits").is_dir(),
    reason="PENULTIMATE_TEST_DATA is not set, or has no reference beside it",
)


def counts(rows) -> dict[str, int]:
    return {split: sum(row.split == split for row in rows) for split in ("train", "validation", "test")}


@needs_reference
def test_the_table_is_the_papers() -> None:
    with (REFERENCE / "paper_datasets.csv").open(encoding="utf-8") as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    assert list(PAPER_SETS) == list(rows)
    for name, facts in PAPER_SETS.items():
        wanted = tuple(rows[name][key] for key in ("classes", "train", "test", "metric"))
        assert (str(facts.classes), str(facts.train), str(facts.test), facts.metric) == wanted


@needs_reference
def test_the_official_lists_of_voc(tmp_path) -> None:
    home = tmp_path / "VOC2007"
    (home / "JPEGImages").mkdir(parents=True)
    (home / "ImageSets").mkdir()
    (home / "ImageSets/Main").symlink_to(REFERENCE / "splits/voc2007")
    rows = voc2007(Release("voc2007", home, tmp_path))
    assert counts(rows) == {"train": 2501, "validation": 2510, "test": 4952}
    labels = [part for row in rows for part in row.label.split("|")]
    assert len({part.removeprefix("?") for part in labels}) == 20
    # Sums of the devkit's own table of images by class.
    people = [row for row in rows if "person" in row.label.split("|")]
    assert counts(people) == {"train": 1025, "validation": 983, "test": 2007}
    assert any(part.startswith("?") for part in labels)


@needs_reference
def test_the_official_lists_of_pets(tmp_path) -> None:
    with (REFERENCE / "splits/pets/full_metadata.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for name, parts in (("trainval", ("train", "val", "valid", "validation")), ("test", ("test",))):
        releases.lines(
            tmp_path / f"annotations/{name}.txt",
            (
                f"{r['image_name']} {r['class_id']} {r['species_id']} {r['breed_id']}"
                for r in table
                if r["split"] in parts
            ),
        )
    (tmp_path / "images").mkdir()
    rows = oxford_pets(Release("oxford_pets", tmp_path, tmp_path))
    assert counts(rows) == {"train": 3680, "validation": 0, "test": 3669}
    assert {row.label for row in rows} == {r["breed"] for r in table}
    assert len({row.label for row in rows}) == 37


@needs_reference
def test_the_official_lists_of_flowers(tmp_path) -> None:
    home = tmp_path / "flowers"
    (home / "jpg").mkdir(parents=True)
    for name in ("setid.mat", "imagelabels.mat"):
        (home / name).symlink_to(REFERENCE / "splits/flowers102" / name)
    rows = flowers102(Release("flowers102", home, tmp_path))
    assert counts(rows) == {"train": 1020, "validation": 1020, "test": 6149}
    assert len({row.label for row in rows}) == 102


@needs_reference
def test_the_official_lists_of_birdsnap(tmp_path) -> None:
    test = (REFERENCE / "splits/birdsnap/test_images.txt").read_text(encoding="utf-8")
    releases.put(tmp_path / "test_images.txt", test)
    entries = test.split("\n")[1:]
    releases.lines(
        tmp_path / "images.txt", ["url\tmd5\tpath", *(f"u\tm\t{e}" for e in [*entries, "A/1.jpg"] if e)]
    )
    (tmp_path / "images").mkdir()
    rows = birdsnap(Release("birdsnap", tmp_path, tmp_path))
    assert counts(rows) == {"train": 1, "validation": 0, "test": 2443}
    assert len({row.label for row in rows if row.split == "test"}) == 500


@needs_reference
def test_the_official_lists_of_cars(tmp_path) -> None:
    (tmp_path / "devkit").mkdir()
    for name in ("cars_meta.mat", "cars_train_annos.mat", "cars_test_annos.mat"):
        (tmp_path / "devkit" / name).symlink_to(REFERENCE / "splits/cars" / name)
    for part in ("train", "test"):
        (tmp_path / f"cars_{part}").mkdir()
    release = Release("stanford_cars", tmp_path, tmp_path)
    with pytest.raises(
        DatasetError, match=r"cars_test_annos_withlabels\.mat: no such file; .* has no classes"
    ):
        stanford_cars(release)
    table = releases.cars_table([(f"{i:05d}.jpg", i) for i in range(1, 197)])
    savemat(tmp_path / "devkit/cars_test_annos_withlabels.mat", {"annotations": table})
    rows = stanford_cars(release)
    assert counts(rows) == {"train": 8144, "validation": 0, "test": 196}
    assert len({row.label for row in rows if row.split == "train"}) == 196
    assert rows[0].label == "Audi TTS Coupe 2012"
