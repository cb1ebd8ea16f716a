"""Pinned values, here and from a remote: others under the same key are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.lock import lock_file, read_lock, write_lock
from pipeline.run import run
from tests.pipeline.pinned import NET, PROBE, swap_values


def test_other_values_under_the_pinned_key_are_refused(here: Path, penultimate) -> None:
    assert penultimate("probe", "study.toml").status == 0
    assert penultimate("cache", "pin", "study.toml").status == 0
    old = {pin.split: pin.content_digest for pin in load_study("study.toml").lock}["test"]
    new = swap_values()
    for words in (("probe", "study.toml"), ("run", "study.toml"), ("plan", "study.toml")):
        result = penultimate(*words)
        assert (result.status, len(result.errors)) == (2, 1), words
        assert old[:12] in result.errors[0]
        assert new.content_digest[:12] in result.errors[0]
        assert f"penultimate cache remove {new.key.digest[:12]}" in result.errors[0]
    assert penultimate("cache", "push", "remote", "--study", "study.toml").status == 2


def test_a_result_from_other_values_than_pinned_is_not_joined(here: Path, penultimate) -> None:
    assert penultimate("probe", "study.toml").status == 0
    swap_values()
    assert penultimate("cache", "pin", "study.toml").status == 0
    assert penultimate("join", "study.toml").status == 0
    (row,) = (here / "out" / "scores.csv").read_text().splitlines()[1:]
    assert ",missing," in row
    why = "missing (made from other values of test than the pinned"
    assert why in (here / "out" / "report.md").read_text().replace("\\", "")
    assert penultimate("probe", "study.toml").status == 0
    assert penultimate("join", "study.toml").status == 0
    assert ",complete," in (here / "out" / "scores.csv").read_text()


def test_the_way_out_that_the_error_names_leads_out(here: Path, penultimate, tmp_path: Path) -> None:
    remote = str(tmp_path / "remote")
    assert penultimate("cache", "push", remote).status == 0
    assert penultimate("cache", "pin", "study.toml").status == 0
    swap_values()
    error = penultimate("probe", "study.toml").errors[0]
    command = re.search(r"`penultimate (cache remove [0-9a-f]+)`", error)
    assert command
    assert penultimate(*command[1].split()).status == 0
    assert penultimate("cache", "pull", remote, "--study", "study.toml").status == 0
    assert penultimate("probe", "study.toml").status == 0
    swap_values()
    again = penultimate("cache", "pin", "study.toml", "--json")
    assert sorted(row["status"] for row in json.loads(again.out)) == ["changed", "unchanged"]
    stale = json.loads(penultimate("plan", "study.toml", "--json").out)["jobs"][-1]
    assert stale["state"] == "stale"
    assert stale["why"].startswith("made from other values of test than the pinned ")
    assert penultimate("probe", "study.toml").status == 0
    assert json.loads(penultimate("probe", "study.toml", "--json").out)["nothing_to_do"]


def test_a_pull_does_not_pass_over_other_values_here(here: Path, penultimate, tmp_path: Path) -> None:
    remote = str(tmp_path / "remote")
    assert penultimate("cache", "push", remote).status == 0
    assert penultimate("cache", "pin", "study.toml").status == 0
    new = swap_values()
    result = penultimate("cache", "pull", remote, "--study", "study.toml")
    assert (result.status, len(result.errors)) == (2, 1)
    assert f"{NET} / colours / test is pinned as {new.key.digest[:12]} with the values" in result.errors[0]
    assert f"`penultimate cache remove {new.key.digest[:12]}`" in result.errors[0]


def test_a_lock_holds_whatever_the_data_set_is_called(
    here: Path, cached: Study, workshop, penultimate
) -> None:
    tables = {
        "backbone": [{"name": NET, "weights": "random", "size": 32, "variant": "again"}],
        "dataset": [{"name": "hues", "source": "csv:colours/split.csv"}],
    }
    workshop.study(tables)
    assert penultimate("cache", "pin", "study.toml").status == 0  # found by key, under the other study's name
    shutil.rmtree(here / "colours")
    result = penultimate("probe", "study.toml")
    assert result.status == 0, result.err
    lock = lock_file(here / "study.toml")
    pins = {pin.split: pin for pin in read_lock(lock)}
    wrong = pins["train"].model_copy(update={"split": "test"})
    write_lock(lock, [pins["train"], wrong])  # a training split is never taken for a test split
    result = penultimate("probe", "study.toml")
    assert (result.status, len(result.errors)) == (2, 1)
    assert "is of split 'train', not 'test'" in result.errors[0]


def test_a_pull_that_finds_nothing_says_in_what_the_names_differ(
    here: Path, workshop, penultimate, tmp_path: Path
) -> None:
    remote = str(tmp_path / "remote")
    assert penultimate("cache", "push", remote).status == 0
    workshop.study({"dataset": [{"name": "hues", "source": "csv:colours/split.csv"}]})
    result = penultimate("cache", "pull", remote, "--study", "study.toml")
    assert result.status == 2
    assert "none of its 2 entries is one that tiny asks for" in result.errors[0]
    assert result.errors[1:] == ["dataset: the study has hues, the entries there have colours"]


def test_pinning_makes_no_result_stale(here: Path, penultimate) -> None:
    assert penultimate("probe", "study.toml").status == 0
    assert penultimate("cache", "pin", "study.toml").status == 0
    assert json.loads(penultimate("probe", "study.toml", "--json").out)["nothing_to_do"]


def test_an_entry_that_is_pinned_and_not_here_is_waited_for(doubt, workshop, penultimate) -> None:
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": "0123456789abcdef"}
    workshop.study({"pin": [pin]})
    result = penultimate("probe", "study.toml", "--json")
    assert result.status == 1
    (waiting,) = json.loads(result.out)["waiting"]
    assert waiting["why"] == "test: the pinned entry 0123456789ab is not in the cache; extract or pull it"


def test_features_that_come_out_other_than_pinned_fail_their_job(workshop, penultimate, monkeypatch) -> None:
    workshop.images()
    study = workshop.load({"extract": {"batch_size": 8, "num_workers": 1, "device": "cpu"}})
    monkeypatch.chdir(workshop.folder)
    run(study, ("extract",))
    assert penultimate("cache", "pin", "study.toml").status == 0
    lock = workshop.folder / "study.lock"
    pins = {pin.split: pin for pin in read_lock(lock)}
    write_lock(lock, [pins["train"], pins["test"].model_copy(update={"content_digest": "0" * 64})])
    open_store().remove(pins["test"].fingerprint)
    outcome = run(load_study("study.toml"), ("extract", "probe"), workers=1)
    (failure,) = outcome.failed
    assert failure.job == f"extract/{NET}/colours/test"
    assert "pinned with the values 000000000000, this machine computed " in failure.reason
    (waiting,) = outcome.waiting
    assert waiting.name == PROBE
    assert "pinned with the values 000000000000" in waiting.why


# Handing on


def test_pull_fetches_what_is_pinned(doubt, here: Path, penultimate, monkeypatch, tmp_path: Path) -> None:
    old, _ = doubt
    remote = str(tmp_path / "remote")
    assert penultimate("cache", "push", remote).status == 0
    assert penultimate("cache", "pin", "study.toml", old.key).status == 0
    assert penultimate("cache", "pin", "study.toml").status == 0
    monkeypatch.setenv("PENULTIMATE_CACHE", str(tmp_path / "colleague"))
    pulled = penultimate("cache", "pull", remote, "--study", "study.toml", "--json")
    assert pulled.status == 0, pulled.err
    keys = [row["key"] for row in json.loads(pulled.out)]
    assert sorted(keys) == sorted(pin.fingerprint for pin in load_study("study.toml").lock)
    assert penultimate("probe", "study.toml").status == 0


def test_pull_refuses_other_values_than_pinned(here: Path, penultimate, monkeypatch, tmp_path: Path) -> None:
    remote = str(tmp_path / "remote")
    assert penultimate("cache", "pin", "study.toml").status == 0
    swap_values()
    assert penultimate("cache", "push", remote).status == 0
    other = str(tmp_path / "other")
    assert penultimate("cache", "push", other, "split=train").status == 0
    monkeypatch.setenv("PENULTIMATE_CACHE", str(tmp_path / "colleague"))
    for place, what in ((remote, "which is there with other values"), (other, "which is not there")):
        result = penultimate("cache", "pull", place, "--study", "study.toml")
        assert (result.status, len(result.errors)) == (2, 1)
        assert what in result.errors[0]


def test_removed_entries_lie_in_the_trash(here: Path, penultimate) -> None:
    (info,) = open_store().find(split="test")
    result = penultimate("cache", "remove", info.key[:8], "--json")
    assert result.status == 0
    (row,) = json.loads(result.out)
    assert Path(row["moved_to"]).is_file()
    assert cache_root() in Path(row["moved_to"]).parents
    assert penultimate("cache", "remove", info.key[:8]).status == 2
