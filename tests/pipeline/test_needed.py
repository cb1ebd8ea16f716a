"""Which entries a study needs: push, pull, verify, pin and gc give one answer, and say what is not here."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.needed import needs_of

NET = "test_resnet.r160_in1k"
TEST = f"{NET}/colours/test"
NOT_HERE = f"1 of 2 entries that tiny needs is not here: {TEST}: "


@pytest.fixture
def half(cached: Study, workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with images whose test features are not cached, and the current folder beside it."""
    monkeypatch.chdir(workshop.folder)
    open_store().remove(open_store().find_one(split="test").key)
    return workshop.folder


def test_what_is_not_here_is_said_by_all(half, penultimate) -> None:
    (there,) = open_store().list()
    way = "run `penultimate extract study.toml`"
    for words in (("push", "remote"), ("verify",), ("push", "remote", "--dry-run")):
        result = penultimate("cache", *words, "--study", "study.toml", "--json")
        assert result.errors == [NOT_HERE + way]
        assert (result.status, [row["key"] for row in json.loads(result.out)]) == (1, [there.key])
    assert list((half / "remote" / "manifests").glob("*.json"))
    refused = penultimate("cache", "pin", "study.toml")
    assert (refused.status, refused.errors) == (2, [f"{NOT_HERE}{way}, then pin; the lock stays as it was"])
    assert not (half / "study.lock").exists()
    kept = penultimate("cache", "gc", "--keep", "study.toml", "--dry-run", "--json")
    assert (kept.status, json.loads(kept.out)["moved"]) == (0, [])
    assert f"note: {NOT_HERE}{way}" in kept.err


def test_what_did_not_come_is_said(half, penultimate, monkeypatch, tmp_path) -> None:
    assert penultimate("cache", "push", "remote", "--study", "study.toml").status == 1
    shutil.rmtree(half / "colours")
    monkeypatch.setenv("PENULTIMATE_CACHE", str(tmp_path / "colleague"))
    for options in (["--dry-run"], [], []):
        result = penultimate("cache", "pull", "remote", "--study", "study.toml", "--json", *options)
        (line,) = result.errors
        assert line == (
            f"1 of 2 entries that tiny needs is neither here nor in remote: {TEST}: ask for it to be pushed, "
            "or extract it where the images are"
        )
        assert (result.status, len(json.loads(result.out))) == (1, 1)


def test_nothing_here_is_told_with_the_way_out(workshop, penultimate, monkeypatch) -> None:
    workshop.images()
    workshop.study()
    monkeypatch.chdir(workshop.folder)
    for words in (("push", "r", "--study"), ("verify", "--study"), ("gc", "--keep")):
        result = penultimate("cache", *words, "study.toml")
        assert (result.status, result.errors) == (
            2,
            ["nothing of tiny is cached here: run `penultimate extract study.toml`"],
        )


def test_gc_keeps_nothing_of_nobody(cached, workshop, penultimate, monkeypatch) -> None:
    monkeypatch.chdir(workshop.folder)
    workshop.study({"backbone": [{"name": NET, "weights": "random", "seed": 5, "size": 32}]})
    assert penultimate("cache", "gc", "--keep", "study.toml").status == 2
    assert len(list(open_store().keys())) == 2


def test_gc_keeps_what_new_labels_are_put_on(cached, workshop, penultimate, monkeypatch) -> None:
    monkeypatch.chdir(workshop.folder)
    csv = workshop.folder / "colours" / "split.csv"
    csv.write_text(csv.read_text().replace(",red,", ",crimson,"))
    kept = penultimate("cache", "gc", "--keep", "study.toml", "--json")
    assert (kept.status, json.loads(kept.out)["moved"]) == (0, []), kept.err
    assert "(only labels are new: no forward pass)" in kept.err


def test_a_lock_is_written_whole_after_new_labels(cached, workshop, penultimate, monkeypatch) -> None:
    """The lock's own error names the way: extract, which the old lock does not stop, then pin."""
    monkeypatch.chdir(workshop.folder)
    assert penultimate("cache", "pin", "study.toml").status == 0
    before = Path("study.lock").read_bytes()
    csv = workshop.folder / "colours" / "split.csv"
    csv.write_text(csv.read_text().replace(",red,", ",crimson,"))
    refused = penultimate("probe", "study.toml")
    assert all("`penultimate extract`, then `penultimate cache pin`" in line for line in refused.errors)
    pin = penultimate("cache", "pin", "study.toml")
    (line,) = pin.errors
    assert pin.status == 2
    assert line.startswith(f"2 of 2 entries that tiny needs are not here: {NET}/colours/train, ")
    assert "run `penultimate extract study.toml` (only labels are new: no forward pass), then pin" in line
    assert Path("study.lock").read_bytes() == before
    extracted = penultimate("extract", "study.toml")
    assert extracted.status == 0, extracted.err
    assert "note: colours/test through " in extracted.err
    again = json.loads(penultimate("cache", "pin", "study.toml", "--json").out)
    assert [row["status"] for row in again] == ["changed", "changed"]
    assert penultimate("probe", "study.toml").status == 0


def test_without_images_validation_counts_where_it_is_here(cached, workshop) -> None:
    shutil.rmtree(workshop.folder / "colours")
    assert [entry.spot[2] for entry in needs_of(cached).entries] == ["train", "test"]
    pin = {"backbone": NET, "dataset": "colours", "split": "validation", "fingerprint": "0" * 12}
    needs = needs_of(workshop.load({"pin": [pin]}))
    assert [entry.name for entry in needs.absent] == [f"{NET}/colours/validation"]


def test_other_names_are_told_to_whoever_pushes(cached, workshop, penultimate, monkeypatch) -> None:
    monkeypatch.chdir(workshop.folder)
    workshop.study({"dataset": [{"name": "hues", "source": "csv:colours/split.csv"}]})
    pushed = penultimate("cache", "push", "remote", "--study", "study.toml")
    assert pushed.status == 0
    said = f"note: {NET}/hues/train, {NET}/hues/test: cached as of dataset 'colours', not 'hues': "
    assert said in pushed.err
    assert "`penultimate cache pin study.toml`, and hand the lock on" in pushed.err
    assert penultimate("cache", "pin", "study.toml").status == 0
    assert "note: " not in penultimate("cache", "push", "remote", "--study", "study.toml").err
    assert len(load_study("study.toml").lock) == 2
    shutil.rmtree(cache_root())
    shutil.rmtree("colours")
    assert penultimate("cache", "pull", "remote", "--study", "study.toml").status == 0
    assert penultimate("probe", "study.toml").status == 0


def test_make_hands_options_on(tmp_path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    root = Path(__file__).parents[2]
    for target, word in (("cache-push", "push"), ("cache-pull", "pull"), ("cache-verify", "verify")):
        told = subprocess.run(
            ["make", "-n", "-f", str(root / "Makefile"), target, "REMOTE=r", "STUDY=s.toml", "ARGS=--dry-run",
             f"VENV={tmp_path}"],
            capture_output=True, text=True, check=True, cwd=root,
        ).stdout  # fmt: skip
        (line,) = (line for line in told.splitlines() if f"penultimate cache {word}" in line)
        assert line.endswith("--dry-run")


def test_the_question_shows_what_people_can_read_and_one_command_answers_all(
    cached, workshop, penultimate, monkeypatch
) -> None:
    monkeypatch.chdir(workshop.folder)
    workshop.publish(workshop.load({"backbone": [{"name": NET, "weights": "random", "size": 48}]}))
    csv = workshop.folder / "colours" / "split.csv"
    text = csv.read_text()
    workshop.load()
    csv.write_text(text.replace(",red,", ",crimson,"))
    assert penultimate("extract", "study.toml").status == 0
    workshop.study({"backbone": [{"name": NET, "weights": "cached"}]})
    shutil.rmtree("colours")
    result = penultimate("probe", "study.toml")
    train, test = result.errors
    assert "size 48" in train
    assert "size 32" in test
    assert "labels 'test/red/0.ppm' is 'crimson'" in test
    assert "relabelled from " in test
    assert "penultimate cache pin" not in train
    command = test.rpartition("pin one of each, as in `penultimate ")[2].rstrip("`").split()
    assert penultimate(*command).status == 0
    assert penultimate("probe", "study.toml").status == 0
    store = open_store()
    one, other = (store.read(pin.fingerprint) for pin in load_study("study.toml").lock)
    assert one.metadata["class_names"] == other.metadata["class_names"]
    assert one.metadata["coordinates"]["preprocessing"] == other.metadata["coordinates"]["preprocessing"]
