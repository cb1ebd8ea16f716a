"""The command line: every command, every bad input, exit statuses, JSON, first studies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline.cache_folder import open_store
from pipeline.cli import cli
from pipeline.config import Study, load_study
from pipeline.plan import plan

NET = "test_resnet.r160_in1k"
README = Path(__file__).parents[2] / "README.md"


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


EVERY = dict(commands())


@pytest.mark.parametrize("words", [[], *(name.split() for name in EVERY)], ids=" ".join)
def test_every_command_has_help(penultimate, words: list[str]) -> None:
    result = penultimate(*words, "--help")
    assert (result.status, result.err) == (0, "")
    assert f"Usage: penultimate {' '.join(words)}".rstrip() in result.out


@pytest.mark.parametrize("name", EVERY)
def test_every_command_is_explained_and_so_is_every_option(name: str) -> None:
    command = EVERY[name]
    assert command.help
    assert command.help.strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", EVERY)
def test_every_command_is_in_the_readme(name: str) -> None:
    text = README.read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(name)}\b", text), f"penultimate {name} is not in README.md"


def test_the_readme_shows_no_command_that_is_unknown() -> None:
    shown = re.findall(
        r"^\s*(?:\$ )?penultimate ([a-z][a-z-]*)", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert shown
    assert set(shown) <= set(EVERY)


@pytest.mark.parametrize(
    "name", [name for name, command in EVERY.items() if not isinstance(command, click.Group)]
)
def test_every_command_can_answer_in_json_and_be_quiet(name: str) -> None:
    options = {option for parameter in EVERY[name].params for option in parameter.opts}
    assert {"--json", "--quiet"} <= options


def test_no_command_shows_the_help_of_all(penultimate) -> None:
    result = penultimate("--help")
    assert all(name in result.out for name in EVERY if " " not in name)
    assert "Exit status: 0 all done" in result.out


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


def test_plan_and_status_show_every_state(workshop, cached: Study, penultimate) -> None:
    file = workshop.folder / "study.toml"
    before = sorted(workshop.folder.rglob("*"))
    shown = penultimate("plan", file)
    assert shown.status == 0
    assert re.search(rf"^done +extract/{re.escape(NET)}/colours/train: cached as ", shown.out, re.MULTILINE)
    assert re.search(rf"^missing +probe/{re.escape(NET)}/colours: not run yet", shown.out, re.MULTILINE)
    status = penultimate("status", file)
    assert status.status == 0
    assert "extract/" not in status.out  # done jobs are counted, not named
    assert re.search(r"^extract +2 +0 +0 +0$", status.out, re.MULTILINE)
    assert sorted(workshop.folder.rglob("*")) == before


def test_plan_in_json_is_the_plan(workshop, cached: Study, penultimate) -> None:
    for command in ("plan", "status"):
        result = penultimate(command, workshop.folder / "study.toml", "--json")
        value = json.loads(result.out)
        assert result.err == ""
        planned = [(job["name"], job["stage"], job["state"], job["why"]) for job in value["jobs"]]
        assert planned == [(p.name, p.stage, p.state, p.why) for p in plan(cached).jobs]


def test_status_says_what_waits(workshop, penultimate) -> None:
    workshop.images()
    result = penultimate("status", workshop.study())
    assert f"waiting  probe/{NET}/colours: features not cached: run extract first" in result.out


def test_probe_and_join_in_json(workshop, cached: Study, penultimate) -> None:
    file = workshop.folder / "study.toml"
    result = penultimate("probe", file, "--json", "--jobs", 1)
    assert (result.status, result.err) == (0, "")
    value = json.loads(result.out)
    assert value["done"] == [f"probe/{NET}/colours"]
    assert (value["failed"], value["waiting"], value["nothing_to_do"]) == ([], [], False)
    value = json.loads(penultimate("join", file, "--json").out)
    assert Path(value["files"][0]).name == "report.html"
    assert all(Path(name).is_file() for name in value["files"])
    again = json.loads(penultimate("join", file, "--json").out)
    assert again["nothing_to_do"] is True


def test_quiet_is_quiet(workshop, cached: Study, penultimate) -> None:
    result = penultimate("probe", workshop.folder / "study.toml", "--quiet", "--jobs", 1)
    assert (result.status, result.out, result.err) == (0, "", "")


def test_a_probe_without_features_does_not_claim_success(workshop, penultimate) -> None:
    workshop.images()
    result = penultimate("probe", workshop.study())
    assert f"probe/{NET}/colours: features not cached: run extract first" in result.out
    assert "nothing to do" not in result.out


def test_backbones_and_datasets_are_listed(penultimate) -> None:
    rows = json.loads(penultimate("backbones", "resnet50", "--json").out)
    assert rows
    assert all("resnet50" in row["name"] and row["dimension"] > 0 for row in rows)
    text = penultimate("backbones", "resnet50.a1_in1k").out
    assert "resnet50.a1_in1k" in text
    assert penultimate("backbones", "no-such-net").status == 2
    names = {row["name"] for row in json.loads(penultimate("datasets", "--json").out)}
    assert {"digits", "textures", "faces"} <= names
    assert "digits" in penultimate("datasets").out


# The cache


def test_the_cache_is_listed_and_shown(cached: Study, penultimate) -> None:
    rows = json.loads(penultimate("cache", "list", "--json").out)
    assert sorted(row["split"] for row in rows) == ["test", "train"]
    (test,) = json.loads(penultimate("cache", "list", "split=test", "--json").out)
    assert (test["rows"], test["dimension"], test["backbone"]) == (6, 3, NET)
    assert test["key"][:12] in penultimate("cache", "list").out
    shown = json.loads(penultimate("cache", "show", test["key"][:8], "--json").out)
    assert shown["key"] == test["key"]
    assert shown["shape"] == [6, 3]
    assert penultimate("cache", "show", "zzzz").status == 2
    assert penultimate("cache", "list", "split").status == 2
    assert "no such entries" in penultimate("cache", "list", "split=none").out


def test_a_damaged_entry_is_named_and_is_exit_1(cached: Study, penultimate) -> None:
    assert penultimate("cache", "verify").status == 0
    info = open_store().find_one(split="test")
    content = bytearray(info.path.read_bytes())
    at = content.index(open_store().read(info.key).features.tobytes()[:16])
    content[at] ^= 1
    info.path.chmod(0o644)
    info.path.write_bytes(bytes(content))
    result = penultimate("cache", "verify")
    assert result.status == 1
    assert any(info.key[:12] in error or str(info.path) in error for error in result.errors)


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


def test_the_installed_command_is_this_one(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("penultimate")
    done = subprocess.run(
        [command, "run", tmp_path / "absent.toml"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'absent.toml'}: no such study file")
    assert done.stdout == ""


def test_a_shadowing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "shadows it" in done.stderr
    assert str(tmp_path) in done.stderr
