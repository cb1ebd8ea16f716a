"""Data sets in studies and on the command line: the paper's, manifests, images that stand in two splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import StudyError
from pipeline.plan import plan
from tests.stages.datasets import releases


@pytest.fixture(autouse=True)
def _no_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENULTIMATE_DATASETS", raising=False)


def dataset(**changes: object) -> dict[str, object]:
    return {"dataset": [{"name": "colours", "source": "csv:colours/split.csv", **changes}]}


# The list


def test_the_list_names_the_paper_s_twelve_with_their_sizes(penultimate) -> None:
    rows = {row["name"]: row for row in json.loads(penultimate("datasets", "--json").out)}
    assert (rows["oxford_pets"]["train"], rows["oxford_pets"]["validation"]) == (2940, 740)
    assert rows["oxford_pets"]["hub"].startswith("timm/oxford-iiit-pet@")
    assert rows["voc2007"]["metric"] == "map_11_point"
    text = penultimate("datasets").out
    assert "oxford_pets" in text
    assert "$PENULTIMATE_DATASETS" in text
    assert penultimate("datasets", "--quiet").out == ""


# One data set


def test_one_set_is_shown_and_its_manifest_written(penultimate, tmp_path) -> None:
    releases.dtd(tmp_path)
    words = ("datasets", "show", "dtd", "--root", tmp_path, "--allow-size-mismatch")
    facts = json.loads(penultimate(*words, "--json").out)
    assert facts["splits"] == {"train": 6, "validation": 6, "test": 6}
    assert facts["images_of_class"]["train"] == [3, 3]
    assert facts["metric"] == "top_1"
    path = tmp_path / "dtd.json"
    text = penultimate(*words, "--manifest", path).out
    assert f"sha256 of the split manifest: {facts['sha256']}" in text
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["sha256"] == facts["sha256"]
    assert written["splits"]["test"]["ids"][0] == "banded/banded_test0.jpg"
    assert penultimate(*words, "--quiet").out == ""


def test_a_manifest_beside_the_images_is_written_anew_and_checked_from_then_on(penultimate, workshop) -> None:
    table = workshop.images()
    file = table.with_name("split.manifest.json")
    words = ("datasets", "show", "ours", "--source", f"csv:{table}")
    assert penultimate(*words, "--manifest", file).status == 0
    assert f"equals the manifest {file.name}" in penultimate(*words).out
    with table.open("a") as csv:
        csv.write("train/red/0.ppm,red,validation\n")
    table.write_text(table.read_text().replace("train/red/0.ppm,red,train\n", ""))
    result = penultimate(*words)
    assert result.status == 2
    assert len(result.errors) == 1
    assert "its splits are ['test', 'train'], found ['test', 'train', 'validation']" in result.errors[0]
    assert penultimate(*words, "--manifest", file).status == 0
    assert penultimate(*words).status == 0


def test_a_study_says_where_a_set_comes_from(penultimate, workshop) -> None:
    workshop.images()
    study = workshop.study()
    assert json.loads(penultimate("datasets", "show", "colours", "--study", study, "--json").out)["splits"] == {
        "train": 12, "test": 6,
    }  # fmt: skip
    unknown = penultimate("datasets", "show", "colour", "--study", study)
    assert unknown.status == 2
    assert "did you mean 'colours'?" in unknown.errors[0]
    assert penultimate("datasets", "show", "colours", "--study", study, "--source", "csv:x").status == 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("dtdd",), 2, "did you mean 'dtd'?"),
        (("dtd",), 2, "name ROOT by root"),
        (("digits", "--manifest", "nowhere/at/all.json"), 3, "cannot be written"),
    ],
)
def test_what_cannot_be_shown(penultimate, workshop, monkeypatch, words, status, said) -> None:
    monkeypatch.chdir(workshop.folder)
    result = penultimate("datasets", "show", *words)
    assert result.status == status
    assert len(result.errors) == 1
    assert said in result.errors[0]


# In studies


def test_a_set_of_the_paper_in_a_study(workshop) -> None:
    releases.oxford_pets(workshop.folder / "data")
    pets = {"name": "oxford_pets", "root": "data", "allow_size_mismatch": True}
    made = plan(workshop.load({"dataset": [pets]}))
    assert [job.name.rsplit("/", 1)[1] for job in made.of("extract")] == ["train", "validation", "test"]
    assert any("no official validation set: 3 training images held out" in note for note in made.notes)
    with pytest.raises(StudyError, match=r"dataset\[1\]: .*15 test images \(expected 3669\)"):
        plan(workshop.load({"dataset": [pets | {"allow_size_mismatch": False}]}))


def test_who_only_joins_needs_no_release(workshop) -> None:
    study = workshop.load({"dataset": [{"name": "oxford_pets"}]})
    with pytest.raises(StudyError, match="oxford_pets is not on this machine"):
        plan(study)
    notes = plan(study, stages=("probe", "join")).absent
    assert any("oxford_pets is not on this machine" in note for note in notes)


def test_a_set_of_the_hub_is_not_fetched_for_those_who_only_join(workshop) -> None:
    study = workshop.load({"dataset": [{"name": "flags", "source": "hf:somebody/flags@main"}]})
    assert any("not read on this machine yet" in note for note in plan(study, stages=("join",)).absent)


def test_a_manifest_named_in_a_study(workshop, penultimate) -> None:
    table = workshop.images()
    penultimate(
        "datasets", "show", "colours", "--source", f"csv:{table}", "--manifest", workshop.folder / "m.json"
    )
    study = workshop.load(dataset(manifest="m.json"))
    assert any("equals the manifest m.json" in note for note in plan(study).notes)
    table.write_text(table.read_text().replace("test/red/0.ppm,red", "test/red/0.ppm,green"))
    with pytest.raises(
        StudyError, match=r"test, row 4: the label of 'test/red/0.ppm' is 'red' there, 'green' here"
    ):
        plan(study)


def copy_into_train(folder: Path, name: str) -> None:
    shutil.copy(folder / f"test/{name}", folder / f"train/{name}")


def test_images_that_stand_in_test_too_are_left_out_where_the_study_says_so(workshop) -> None:
    table = workshop.images()
    table.write_text(table.read_text() + "twin.ppm,red,validation\nother.ppm,green,validation\n")
    for twin, of in (("train/red/1.ppm", "test/red/0.ppm"), ("twin.ppm", "test/green/2.ppm")):
        shutil.copy(table.parent / of, table.parent / twin)
    releases.put(table.parent / "other.ppm", (table.parent / "test/red/1.ppm").read_bytes() + b" ")
    told = plan(workshop.load(dataset()))
    assert any("1 image of test is byte-identical to an image of train" in note for note in told.notes)
    assert len(told.resolved.images["colours"].dataset.splits["train"]) == 12

    clean = plan(workshop.load(dataset(exclude_duplicates=True)))
    images = clean.resolved.images["colours"]
    assert "train/red/1.ppm" not in images.dataset.splits["train"].ids
    assert {name: len(split) for name, split in images.dataset.splits.items()} == {
        "train": 11, "validation": 1, "test": 6,
    }  # fmt: skip
    assert all(len(images.image_sha256[name]) == len(split) for name, split in images.dataset.splits.items())
    notes = " ".join(clean.notes)
    assert (
        "1 image of train left out, byte-identical to images of test: 'train/red/1.ppm' is 'test/red/0.ppm' of test"
        in notes
    )
    assert "1 image of validation left out" in notes
    assert "of train, such as" not in notes


def test_an_image_under_two_labels_is_told(workshop) -> None:
    table = workshop.images()
    for place in ("train/green/0.ppm", "test/green/1.ppm"):
        shutil.copy(table.parent / "train/red/0.ppm", table.parent / place)
    notes = plan(workshop.load(dataset())).notes
    said = "colours: 3 images are byte-identical to one with another label, such as 'train/green/0.ppm' and"
    assert any(f"{said} 'train/red/0.ppm'" in note for note in notes)
    assert any("1 image of test is byte-identical to an image of train" in note for note in notes)


def test_a_class_is_not_left_without_a_training_image(workshop) -> None:
    table = workshop.images(train=1, test=1)
    copy_into_train(table.parent, "red/0.ppm")
    with pytest.raises(
        StudyError, match=r"dataset\[1\]: .* would leave class 'red' without a training image"
    ):
        plan(workshop.load(dataset(exclude_duplicates=True)))


def test_nothing_is_left_out_where_nothing_stands_twice(workshop) -> None:
    workshop.images()
    plain, clean = plan(workshop.load(dataset())), plan(workshop.load(dataset(exclude_duplicates=True)))
    assert plain.notes == clean.notes
    assert [job.name for job in plain.jobs] == [job.name for job in clean.jobs]
