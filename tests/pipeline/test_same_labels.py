"""Labels that are here decide, though the images are not: features of other labels are refused, or told apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cache import CacheKey
from pipeline.cache_folder import open_store
from pipeline.choices import AmbiguousEntriesError
from pipeline.config import Study, load_study
from pipeline.plan import plan

NET = "test_resnet.r160_in1k"


@pytest.fixture
def without_images(cached: Study, workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study, its csv and its cached features, without the images; the csv."""
    monkeypatch.chdir(workshop.folder)
    return bare(workshop.folder)


def bare(folder: Path) -> Path:
    """Take the images away, and leave their csv."""
    for split in ("train", "test"):
        shutil.rmtree(folder / "colours" / split)
    return folder / "colours" / "split.csv"


def changed(csv: Path, *pairs: tuple[str, str]) -> None:
    text = csv.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    csv.write_text(text)


def test_the_labels_that_were_extracted_are_probed(without_images, penultimate) -> None:
    result = penultimate("probe", "study.toml")
    assert result.status == 0, result.err
    assert "cached features are found by name, rows and labels" in result.err


FIRST = "row 1 is 'test/green/0.ppm' in csv:colours/split.csv, 'test/green/0.ppm'"
OTHERS = {
    "another label": (
        [("test/red/1.ppm,red", "test/red/1.ppm,green")],
        ["colours/test: ", "'test/red/1.ppm' is 'green' in csv:colours/split.csv, 'red' in the cached features"],
    ),
    "a class renamed": ([(",red,", ",RED,")], ["'train/red/0.ppm' is 'RED' in csv", "'red' in the cached"]),
    "another order": (
        [("test/red/0.ppm,red,test\ntest/red/1.ppm", "test/red/1.ppm,red,test\ntest/red/0.ppm")],
        ["row 4 is 'test/red/1.ppm' in csv:colours/split.csv, 'test/red/0.ppm' in the cached features"],
    ),
    "a row less": ([("test/red/2.ppm,red,test\n", "")], ["row 6 is no such row in csv", "'test/red/2.ppm' in"]),
    "groups": ([("label,split", "label,split,group"), (",train\n", ",train,a\n"), (",test\n", ",test,b\n")],
               ["colours/train: ", "groups, or whether"]),
    "a class of train alone": (
        [("train/red/0.ppm,red", "train/red/0.ppm,blue")],
        ["colours/test: ", "the classes of csv:colours/split.csv have 'blue' beyond those of"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_other_labels_are_refused_by_every_command(case, without_images, penultimate, tmp_path) -> None:
    pairs, said = OTHERS[case]
    changed(without_images, *pairs)
    for words in (
        ("probe", "study.toml"),
        ("analyse", "duplicates", "study.toml"),
        ("cache", "push", tmp_path / "r", "--study", "study.toml"),
    ):
        result = penultimate(*words)
        assert result.status == 2
        assert all(any(part in line for line in result.errors) for part in said), result.errors
        assert all("mend the list, or extract with it where the images are" in line for line in result.errors)
    assert not (tmp_path / "r").exists()


def test_one_line_a_split_however_many_backbones(without_images, workshop, penultimate) -> None:
    store = open_store()
    for info in store.list():
        entry = store.read(info.key)
        parts = {**entry.key.ingredients, "weights_sha256": "1" * 64}
        facts = {name: entry.metadata[name] for name in ("class_names", "multi_label", "expected_rows")}
        facts["coordinates"] = {**entry.metadata["coordinates"], "weights": "random:1"}
        with store.writer(CacheKey.from_ingredients(parts), facts) as writer:
            columns, n = entry.row_metadata, len(entry.ids)
            writer.append(entry.features, entry.labels, list(entry.ids), stop=n, row_metadata=columns)
            writer.publish()
    net = {"name": NET, "weights": "random", "size": 32}
    workshop.study({"backbone": [net, {**net, "seed": 1, "variant": "b"}]})
    changed(without_images, ("test/red/1.ppm,red", "test/red/1.ppm,green"))
    result = penultimate("probe", "study.toml")
    assert (result.status, len(result.errors)) == (2, 1), result.errors


def test_a_lock_does_not_overrule_the_labels(without_images, penultimate) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    changed(without_images, ("test/red/1.ppm,red", "test/red/1.ppm,green"))
    (line,) = penultimate("probe", "study.toml").errors
    assert line.startswith(f"colours/test through {NET}: the pinned entry ")
    assert "'test/red/1.ppm' is 'green' in csv:colours/split.csv, 'red' in the cached features" in line


def test_a_csv_that_is_wrong_in_itself_is_refused_without_its_images(without_images, penultimate) -> None:
    changed(without_images, ("test/red/1.ppm,red", "test/red/1.ppm,RED"))
    (line,) = penultimate("probe", "study.toml").errors
    assert line.startswith("dataset[1]: ")
    assert "class 'RED' is in test and has no image in train" in line


def test_the_csv_says_which_of_several_entries_is_meant(cached, workshop, monkeypatch) -> None:
    monkeypatch.chdir(workshop.folder)
    csv = workshop.folder / "colours" / "split.csv"
    old, before = {info.key for info in open_store().list()}, csv.read_text()
    changed(csv, (",red,", ",crimson,"))
    workshop.publish(cached)
    after = csv.read_text()
    bare(workshop.folder)
    new = {info.key for info in open_store().list()} - old
    for text, keys in ((before, old), (after, new)):
        csv.write_text(text)
        (planned,) = plan(load_study("study.toml"), stages=("probe",)).of("probe")
        assert set(planned.job.entries.values()) == keys


def test_the_csv_says_which_splits_are_needed(without_images, penultimate) -> None:
    changed(without_images, ("train/red/5.ppm,red,train", "train/red/5.ppm,red,validation"),
            ("train/green/5.ppm,green,train", "train/green/5.ppm,green,validation"))  # fmt: skip
    assert "row 6 is 'train/red/0.ppm'" in penultimate("probe", "study.toml").errors[0]


def test_images_here_and_weights_not_do_not_let_other_labels_pass(cached, workshop, monkeypatch) -> None:
    """Without the weights no key is known: then too the labels count, not the images alone."""
    from dataclasses import replace

    from pipeline import resolve

    monkeypatch.chdir(workshop.folder)
    changed(workshop.folder / "colours" / "split.csv", ("test/red/1.ppm,red", "test/red/1.ppm,green"))
    really = resolve._backbone

    def forgotten(*words, **more):
        backbone = really(*words, **more)
        return replace(backbone, weights=replace(backbone.weights, sha256=None))

    monkeypatch.setattr(resolve, "_backbone", forgotten)
    (planned,) = plan(cached, stages=("probe",)).of("probe")
    assert planned.state == "waiting"
    assert "test: cached with other labels ('test/red/1.ppm' is 'green' in csv" in planned.why


def test_duplicates_left_out_are_no_other_rows(cached, workshop, monkeypatch) -> None:
    monkeypatch.chdir(workshop.folder)
    shutil.copy("colours/test/red/0.ppm", "colours/train/red/0.ppm")
    table = {"name": "colours", "source": "csv:colours/split.csv", "exclude_duplicates": True}
    study = workshop.load({"dataset": [table]})
    assert workshop.publish(study) == 1
    (again,) = {i.key for i in open_store().find(split="train") if i.rows == 11}
    for info in open_store().find(split="train"):
        if info.key != again:
            open_store().remove(info.key)
    bare(workshop.folder)
    (planned,) = plan(study, stages=("probe",)).of("probe")
    assert planned.job.entries["train"] == again


def test_the_size_that_a_study_says_counts_for_features_without_a_network(
    cached, workshop, monkeypatch
) -> None:
    monkeypatch.chdir(workshop.folder)
    wide = workshop.load({"backbone": [{"name": NET, "weights": "random", "size": 64}]})
    workshop.publish(wide)
    keys = {size: set() for size in ("32", "64")}
    for info in open_store().list():
        keys[str(info.coordinates["preprocessing"]).partition(" ")[0]].add(info.key)
    data = [{"name": "colours", "source": "cached"}]
    for size in (32, 64):
        for told in (
            {"extract": {"size": size}, "backbone": [{"name": NET, "weights": "cached"}]},
            {"backbone": [{"name": NET, "weights": "cached", "size": size}]},
        ):
            (planned,) = plan(workshop.load({"dataset": data, **told}), stages=("probe",)).of("probe")
            assert set(planned.job.entries.values()) == keys[str(size)]
    none = workshop.load({"dataset": data, "backbone": [{"name": NET, "weights": "cached", "size": 48}]})
    (planned,) = plan(none, stages=("probe",)).of("probe")
    assert planned.state == "waiting"
    with pytest.raises(AmbiguousEntriesError):
        plan(workshop.load({"dataset": data, "backbone": [{"name": NET, "weights": "cached"}]}))


def to_links(folder: Path) -> None:
    """Turn images into links that lead nowhere, as tools that keep large files elsewhere leave them."""
    for image in sorted(folder.rglob("*.ppm")):
        image.unlink()
        image.symlink_to("/nonexistent/annex/object")


def test_split_folders_of_links_say_the_labels_too(workshop, monkeypatch) -> None:
    monkeypatch.chdir(workshop.folder)
    for split, count in (("train", 4), ("test", 3)):
        workshop.class_folders(f"bees/{split}", count=count)
    for image in sorted(Path("bees/test").rglob("*.ppm")):
        image.write_bytes(image.read_bytes()[:-1] + b"\x01")
    study = workshop.load({"dataset": [{"name": "bees", "source": "folder:bees"}]})
    workshop.publish(study)
    to_links(Path("bees"))
    (planned,) = plan(study, stages=("probe",)).of("probe")
    assert set(planned.job.entries) == {"train", "test"}
    Path("bees/test/red").rename("bees/test/crimson")
    Path("bees/train/red").rename("bees/train/crimson")
    (train, _) = plan(study, stages=("probe",)).conflicts
    assert (
        "row 1 is 'train/crimson/0.ppm' in folder:bees, 'train/green/0.ppm' in the cached features" in train
    )


def test_class_folders_of_links_are_absent(workshop) -> None:
    to_links(workshop.class_folders("bees"))
    study = workshop.load({"dataset": [{"name": "bees", "source": "folder:bees"}]})
    (note,) = plan(study, stages=("probe",)).absent
    assert "none of the 10 images is there, they are links that lead nowhere" in note
