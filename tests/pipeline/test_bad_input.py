"""Bad input: one line a mistake, exit 2, nothing started."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NET = "test_resnet.r160_in1k"
README = Path(__file__).parents[2] / "README.md"


# Bad input: one line a mistake, exit 2, nothing started

Prepare = Callable[[Any], dict[str, Any] | None]


def rewrite(workshop: Any, change: Callable[[str], str | bytes], **images: Any) -> None:
    csv = workshop.images(**images)
    text = change(csv.read_text(encoding="utf-8"))
    csv.write_bytes(text if isinstance(text, bytes) else text.encode())


def _unknown_backbone(workshop: Any) -> dict[str, Any]:
    workshop.images()
    return {"backbone": [{"name": "resnet50.a1_in1"}]}


def _missing_folder(workshop: Any) -> dict[str, Any]:
    return {"dataset": [{"name": "x", "source": "folder:nowhere"}]}


def _missing_csv(workshop: Any) -> dict[str, Any]:
    return {}


def _missing_images(workshop: Any) -> None:
    workshop.images()
    (workshop.folder / "colours/test/red/0.ppm").unlink()


def _all_images_missing(workshop: Any) -> None:
    workshop.images()
    shutil.rmtree(workshop.folder / "colours/test")
    shutil.rmtree(workshop.folder / "colours/train")


def _one_class(workshop: Any) -> None:
    workshop.images(classes=("red",))


def _class_that_train_lacks(workshop: Any) -> None:
    def without_blue(text: str) -> str:
        return re.sub(r"^train/blue.*\n", "", text, flags=re.MULTILINE)

    rewrite(workshop, without_blue, classes=("blue", "green", "red"))


def _no_test(workshop: Any) -> None:
    rewrite(workshop, lambda text: re.sub(r"^test/.*\n", "", text, flags=re.MULTILINE))


def _no_train(workshop: Any) -> None:
    rewrite(workshop, lambda text: re.sub(r"^train/.*\n", "", text, flags=re.MULTILINE))


def _duplicate_ids(workshop: Any) -> None:
    rewrite(workshop, lambda text: text + text.splitlines()[1] + "\n")


def _label_typo(workshop: Any) -> None:
    rewrite(workshop, lambda text: text.replace("test/green/0.ppm,green", "test/green/0.ppm,gren"))


def _split_typo(workshop: Any) -> None:
    rewrite(workshop, lambda text: text.replace("green,test", "green,tset", 1))


def _empty_csv(workshop: Any) -> None:
    rewrite(workshop, lambda _: "")


def _only_a_header(workshop: Any) -> None:
    rewrite(workshop, lambda text: text.splitlines()[0] + "\n")


def _not_utf8(workshop: Any) -> None:
    rewrite(workshop, lambda text: text.replace("green/0", "gr\u00fcn/0", 1).encode("latin-1"))


def _folder_name_not_utf8(workshop: Any) -> dict[str, Any]:
    workshop.class_folders("folders")
    (workshop.folder / "folders" / "gr\udcfcn").mkdir()
    return {"dataset": [{"name": "x", "source": "folder:folders"}]}


def _line_break_in_a_class(workshop: Any) -> dict[str, Any]:
    workshop.class_folders("folders")
    (workshop.folder / "folders" / "red").rename(workshop.folder / "folders" / "re\nd")
    return {"dataset": [{"name": "x", "source": "folder:folders"}]}


def _line_break_in_a_name(workshop: Any) -> dict[str, Any]:
    workshop.images()
    return {"dataset": [{"name": "a\nb", "source": "csv:colours/split.csv"}]}


def _unknown_key(workshop: Any) -> dict[str, Any]:
    workshop.images()
    return {"probe": {"fodls": 3}}


def _wrong_type(workshop: Any) -> dict[str, Any]:
    workshop.images()
    return {"probe": {"folds": "five"}}


def _metric_that_does_not_fit(workshop: Any) -> dict[str, Any]:
    rewrite(workshop, lambda text: text.replace("green/0.ppm,green", "green/0.ppm,green|red"))
    return {"dataset": [{"name": "x", "source": "csv:colours/split.csv", "metric": "top_1"}]}


def _unknown_source(workshop: Any) -> dict[str, Any]:
    return {"dataset": [{"name": "x", "source": "cvs:colours/split.csv"}]}


def _missing_weights(workshop: Any) -> dict[str, Any]:
    workshop.images()
    return {"backbone": [{"name": NET, "weights": "file:nowhere.pth"}]}


BAD: list[tuple[Prepare, str]] = [
    (_unknown_backbone, r"backbone\[1\]\.name: unknown backbone 'resnet50\.a1_in1'; did you mean"),
    (_missing_folder, r"dataset\[1\]: .*nowhere: no such folder; give the path"),
    (_missing_csv, r"dataset\[1\]: .*split\.csv: no such csv; give the path"),
    (_missing_images, r"dataset\[1\]: .*1 of 18 images are not there: 'test/red/0\.ppm'"),
    (_all_images_missing, r"dataset\[1\]: .*none of the 18 images is there"),
    (_one_class, r"dataset\[1\]: .*one class only \('red'\)"),
    (_class_that_train_lacks, r"dataset\[1\]: .*class 'blue' is in test and has no image in train; add"),
    (_no_test, r"dataset\[1\]: .*split 'test' has no rows \(found: train\)"),
    (_no_train, r"dataset\[1\]: .*split 'train' has no rows \(found: test\)"),
    (_duplicate_ids, r"dataset\[1\]: .*1 ids are listed more than once: 'train/green/0\.ppm'"),
    (_label_typo, r"dataset\[1\]: .*class 'gren' is in test and has no image in train; a typo of 'green'\?"),
    (_split_typo, r"dataset\[1\]: .*split\.csv:\d+: split 'tset' is not .*did you mean 'test'"),
    (_empty_csv, r"dataset\[1\]: .*the csv is empty; expected the header"),
    (_only_a_header, r"dataset\[1\]: .*a header and no rows"),
    (_not_utf8, r"dataset\[1\]: .*split\.csv: not UTF-8 at byte \d+"),
    (_folder_name_not_utf8, r"dataset\[1\]: .*the name is not UTF-8; rename"),
    (_line_break_in_a_class, r"dataset\[1\]: .*rename"),
    (_line_break_in_a_name, r"dataset\[1\]\.name: a name holds no control characters"),
    (_unknown_key, r".*study\.toml: probe\.fodls: unknown key; did you mean 'folds'"),
    (_wrong_type, r".*study\.toml: probe\.folds: .*\(found 'five'\)"),
    (_metric_that_does_not_fit, r"dataset\[1\]: .*metric 'top_1' does not fit several labels an image"),
    (_unknown_source, r"dataset\[1\]: source 'cvs:.*'cvs' is no known kind; did you mean 'csv'"),
    (_missing_weights, r"backbone\[1\]: weights file .*nowhere\.pth is not there"),
]


@pytest.mark.parametrize(("prepare", "line"), BAD, ids=[prepare.__name__.strip("_") for prepare, _ in BAD])
def test_bad_input_is_one_line_and_exit_2_before_any_work(
    workshop, penultimate, prepare: Prepare, line: str
) -> None:
    file = workshop.study(prepare(workshop))
    result = penultimate("run", file)
    assert result.status == 2, result.err
    (error,) = result.err.splitlines()
    assert re.match(rf"error: (.*study\.toml: )?{line}", error), error
    assert workshop.is_untouched()
    assert result.out == ""


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "no such study file"), ("x = [", "not TOML"), (b"\xff", "not UTF-8"), ("", "study: missing")],
    ids=["missing", "not TOML", "not UTF-8", "empty"],
)
@pytest.mark.parametrize("command", ["run", "plan", "status", "probe"])
def test_a_bad_study_file_is_exit_2(
    tmp_path: Path, penultimate, command: str, content: Any, line: str
) -> None:
    file = tmp_path / "study.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = penultimate(command, file)
    assert result.status == 2
    assert result.errors
    assert all(error.startswith(f"{file}: ") for error in result.errors)
    assert line in result.errors[0]


@pytest.mark.parametrize(
    "words",
    [["rnu"], ["run"], ["run", "s.toml", "--jobs", "0"], ["bench", "nothing"], ["--nope"]],
    ids=" ".join,
)
def test_wrong_words_are_exit_2(penultimate, words: list[str]) -> None:
    result = penultimate(*words)
    assert result.status == 2
    assert "Traceback" not in result.err
    assert result.err


def test_a_wrong_pattern_is_exit_2(workshop, penultimate) -> None:
    workshop.images()
    result = penultimate("run", workshop.study(), "--only", "(")
    assert result.status == 2
    assert len(result.errors) == 1
    assert workshop.is_untouched()


# Reading commands


# The cache


# First studies


# The installed command
