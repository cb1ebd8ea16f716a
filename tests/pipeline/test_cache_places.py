"""Names and places that are easily mistaken: another folder, a cache for a remote, a set by half its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.cache_folder import cache_root
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.remote_choice import only_one

NET = "test_resnet.r160_in1k"


@pytest.fixture
def here(cached: Study, workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with images and cached features, and the current folder beside it."""
    monkeypatch.chdir(workshop.folder)
    return workshop.folder


def test_run_without_images_names_the_way_out(here, penultimate) -> None:
    shutil.rmtree("colours")
    absent, way = penultimate("run", "study.toml").errors
    assert absent.endswith("split.csv: no such csv; give the path relative to the study file")
    assert "all cached features of tiny are here, and need neither" in way
    commands = [part.split("`")[0].split() for part in way.split("`penultimate ")[1:]]
    assert commands == [["probe", "study.toml"], ["join", "study.toml"]]
    assert penultimate(*commands[0]).status == 0
    (line,) = penultimate("extract", "study.toml").errors
    assert "no such csv" in line
    shutil.rmtree(cache_root())
    (line,) = penultimate("run", "study.toml").errors
    assert "no such csv" in line


@pytest.mark.parametrize("below", ["", "features"])
def test_a_cache_is_no_remote(here, penultimate, monkeypatch, tmp_path, below) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(cache_root(), theirs)
    before = sorted(theirs.rglob("*"))
    for words in (("push",), ("pull",), ("list", "--remote"), ("show", "ab", "--remote")):
        result = penultimate("cache", *words, theirs / below)
        assert result.status == 2
        assert result.errors[0].startswith(f"{theirs / below}: is a cache, not a remote")
    assert sorted(theirs.rglob("*")) == before


def test_a_folder_that_a_push_makes_is_told(here, penultimate) -> None:
    for options, said in ((["--dry-run"], "would be made"), ([], "was made")):
        result = penultimate("cache", "push", "remot", *options)
        assert f"note: remot: there was no such folder, it {said}" in result.err
        assert result.status == 0
    assert "note:" not in penultimate("cache", "push", "remot").err


def test_an_empty_list_says_where_it_looked(here, penultimate, monkeypatch, tmp_path) -> None:
    said = penultimate("cache", "list", "dataset=colour")
    assert said.status == 0
    assert f"no such entries in {cache_root()}: none has dataset=colour; did you mean 'colours'?" in said.out
    assert json.loads(penultimate("cache", "list", "dataset=colour", "--json").out) == []
    refused = penultimate("cache", "push", "remote", "dataset=pets")
    assert refused.status == 2
    assert (
        "no such entries here: none has dataset=pets, but colours; `penultimate cache list`"
        in refused.errors[0]
    )
    wrong = tmp_path / "wrong"
    monkeypatch.setenv("PENULTIMATE_CACHE", str(wrong))
    assert f"there is no folder {wrong} ($PENULTIMATE_CACHE" in penultimate("cache", "list").out


def test_the_path_of_an_entry_is_told_to_programs(here, penultimate) -> None:
    rows = json.loads(penultimate("cache", "list", "--json").out)
    assert [Path(row["path"]).stem for row in rows] == [row["key"] for row in rows]
    assert all(Path(row["path"]).is_file() for row in rows)
    assert str(cache_root()) not in penultimate("cache", "list").out


def test_a_key_in_place_of_a_coordinate(here, penultimate) -> None:
    (line,) = penultimate("cache", "list", "colours").errors
    assert "`penultimate cache show KEY` shows one entry" in line
    assert "--key" not in line
    (line,) = penultimate("cache", "verify", "colours").errors
    assert "a key is given as --key KEY" in line


def test_what_a_study_says_itself_is_no_note(here, workshop, penultimate) -> None:
    workshop.study({"dataset": [{"name": "colours", "source": "cached"}]})
    result = penultimate("probe", "study.toml")
    assert (result.status, "note:" in result.err) == (0, False)


def test_a_cache_that_was_made_read_only_stays_so(here, penultimate) -> None:
    np.save("f.npy", np.ones((2, 3), np.float32))
    Path("l.csv").write_text("id,label\na,x\nb,y\n")
    (key, *_) = (path.stem for path in cache_root().glob("features/entries/*/*.h5"))
    assert penultimate("cache", "export", key, "out.h5").status == 0
    penultimate("cache", "restore", penultimate("cache", "remove", key).out[:12])  # makes trash
    folders = [path for path in (cache_root(), *cache_root().rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        where = ("backbone=b", "dataset=d", "split=train")
        for words in (("import", "f.npy", "l.csv", *where), ("import", "out.h5"), ("remove", key)):
            result = penultimate("cache", *words)
            assert result.status == 3, result.err
            assert "made read-only" in result.errors[0]
            assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o555}
        assert penultimate("probe", "study.toml").status == 0
    finally:
        for folder in folders:
            folder.chmod(0o755)


def imported(penultimate, split: str, width: int):
    np.save(f"{split}.npy", np.arange(2.0 * width, dtype=np.float32).reshape(2, width))
    Path("l.csv").write_text("id,label\na,x\nb,y\n")
    return penultimate(
        "cache", "import", f"{split}.npy", "l.csv", "backbone=b", "dataset=d", f"split={split}"
    )


def test_splits_of_other_widths_are_told_when_they_are_imported(here, penultimate) -> None:
    assert "note:" not in imported(penultimate, "train", 3).err
    second = imported(penultimate, "test", 4)
    assert second.status == 0
    assert "(train) has 3 columns, this one 4: no probe takes both" in second.err


def test_what_is_there_already_is_called_so_either_way(here, penultimate) -> None:
    imported(penultimate, "train", 3)
    assert ": already here, 2 rows" in imported(penultimate, "train", 3).out
    key = next(path.stem for path in cache_root().glob("features/entries/*/*.h5"))
    assert penultimate("cache", "export", key, "out.h5").status == 0
    assert ": already here, " in penultimate("cache", "import", "out.h5").out


def test_an_exported_entry_takes_no_coordinates(here, penultimate) -> None:
    key = next(path.stem for path in cache_root().glob("features/entries/*/*.h5"))
    assert penultimate("cache", "export", key, "out.h5").status == 0
    (line,) = penultimate("cache", "import", "out.h5", "backbone=other").errors
    assert "an exported entry says itself what it is, import it without coordinates" in line


def test_keys_that_begin_alike_are_named() -> None:
    keys = [f"1{k}{'0' * 62}" for k in "abcdef"]
    with pytest.raises(StudyError, match=r"2 entries begin with '1' \(1a0000000000, 1b0000000000\); look"):
        only_one("1", keys[:2], "look")
    with pytest.raises(StudyError, match=r"6 entries begin with '1' \(1a.*, 1d0000000000 and 2 more\)"):
        only_one("1", keys, "look")


@pytest.mark.parametrize(("size", "moved"), [("5kB", 2), ("1GB", 0), ("0.5MB", 0), ("0", 2), ("1", 0)])
def test_a_largest_total_may_bear_a_unit(here, penultimate, size, moved) -> None:
    result = penultimate("cache", "gc", "--largest-total", size, "--dry-run", "--json")
    assert (result.status, len(json.loads(result.out)["moved"])) == (0, moved)
