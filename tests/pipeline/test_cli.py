"""The command line: every command, every bad input, exit statuses, JSON, first studies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cache_folder import open_store
from pipeline.cli import cli
from pipeline.config import Study
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
