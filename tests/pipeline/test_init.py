"""`penultimate init`: first studies of folders and csv files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Study, load_study
from pipeline.plan import plan

NET = "test_resnet.r160_in1k"
README = Path(__file__).parents[2] / "README.md"


# Bad input: one line a mistake, exit 2, nothing started

Prepare = Callable[[Any], dict[str, Any] | None]


# Reading commands


# The cache


# First studies


def check_first_study(penultimate, folder: Path, *words: object) -> Study:
    result = penultimate("init", *words)
    assert result.status == 0, result.err
    path = Path(result.out.partition(":")[0])
    assert f"next: penultimate run {path}" in result.out
    study = load_study(folder / path)
    assert {p.stage for p in plan(study).jobs} == {"extract", "probe"}
    return study


@pytest.fixture
def here(workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workshop.folder)
    return workshop.folder


def test_init_on_class_folders(workshop, here: Path, penultimate) -> None:
    workshop.class_folders("My Bees!", classes=("blue", "green", "red"))
    study = check_first_study(penultimate, here, "My Bees!")
    assert study.name == "My-Bees"
    assert (
        (here / "My-Bees.toml")
        .read_text()
        .startswith("# A first study of 3 classes, 12 train, 3 test images")
    )


def test_init_on_split_folders(workshop, here: Path, penultimate) -> None:
    workshop.class_folders("bees/train")
    workshop.class_folders("bees/val", count=2)
    workshop.class_folders("bees/test", count=3)
    study = check_first_study(penultimate, here, "bees")
    images = plan(study).resolved.images["bees"].dataset
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 10,
        "validation": 4,
        "test": 6,
    }


@pytest.mark.parametrize("word", ["colours", "colours/split.csv"])
def test_init_on_a_csv(workshop, here: Path, penultimate, word: str) -> None:
    workshop.images()
    study = check_first_study(penultimate, here, word)
    assert study.dataset[0].source == "csv:colours/split.csv"


def test_init_elsewhere_writes_a_path_that_is_found(workshop, tmp_path: Path, penultimate) -> None:
    workshop.images()
    target = tmp_path / "studies" / "first.toml"
    result = penultimate("init", workshop.folder / "colours", "--output", target, "--json")
    assert result.status == 0
    value = json.loads(result.out)
    assert value["study"] == str(target)
    assert plan(load_study(target)).jobs


def test_init_never_overwrites(workshop, here: Path, penultimate) -> None:
    workshop.images()
    (here / "colours.toml").write_text("mine")
    result = penultimate("init", "colours")
    assert result.status == 2
    assert "exists already; choose another file with --output" in result.errors[0]
    assert (here / "colours.toml").read_text() == "mine"


def test_init_where_nothing_is_to_be_found(workshop, here: Path, penultimate) -> None:
    (here / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        result = penultimate("init", folder)
        assert result.status == 2
        assert len(result.errors) == 1
        assert not (here / f"{folder}.toml").exists()


def test_init_where_it_may_not_write_is_exit_3(workshop, here: Path, penultimate) -> None:
    workshop.images()
    (here / "file.txt").write_text("not a folder")
    result = penultimate("init", "colours", "--output", "file.txt/study.toml")
    assert result.status == 3
    assert "cannot be written" in result.errors[0]


# The installed command
