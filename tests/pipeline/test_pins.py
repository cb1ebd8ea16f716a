"""Which entry is meant: asked about on a terminal, pinned in STUDY.lock or in the study, refused where it differs."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache import CacheKey, Entry, EntryInfo, Store
from pipeline.choices import AmbiguousEntriesError
from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.ledger import Ledger
from pipeline.lock import lock_file, read_lock, write_lock
from pipeline.pins import pins_of
from pipeline.plan import plan
from pipeline.resolve import cache_root, open_store
from pipeline.run import run
from pipeline.tables import PinTable

NET = "test_resnet.r160_in1k"
PROBE = f"probe/{NET}/colours"
STAGES = ("probe", "join")


@pytest.fixture
def here(cached: Study, workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with images and cached features, and the current folder beside it."""
    monkeypatch.chdir(workshop.folder)
    return workshop.folder


@pytest.fixture
def doubt(here: Path, cached: Study, workshop) -> tuple[EntryInfo, ...]:
    """Two entries of test match and the images are gone; the older entry first."""
    (old,) = open_store().find(split="test")
    image = here / "colours/test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    workshop.publish(cached)
    shutil.rmtree(here / "colours")
    new = next(info for info in open_store().find(split="test") if info.key != old.key)
    return old, new


def republish(entry: Entry, *, store: Store, change: float = 1e-3) -> Entry:
    """The same key with other values, as another machine may compute them."""
    facts = {
        name: entry.metadata[name] for name in ("coordinates", "class_names", "multi_label", "expected_rows")
    }
    with store.writer(
        CacheKey.from_ingredients(entry.key.ingredients), {**facts, "provenance": {}}
    ) as writer:
        writer.append(
            np.array(entry.features) + np.float32(change),
            np.array(entry.labels),
            list(entry.ids),
            stop=len(entry.ids),
            row_metadata=entry.row_metadata,
        )
        return writer.publish()


def swap_values(split: str = "test") -> Entry:
    """Put other values under the key of a cached entry."""
    store = open_store()
    entry = store.read(store.find_one(split=split).key)
    store.remove(entry.key)
    return republish(entry, store=store)


def pin_of(info: EntryInfo, **changes: object) -> PinTable:
    facts = {"backbone": NET, "dataset": "colours", "split": info.coordinates["split"]}
    return PinTable.model_validate({**facts, "fingerprint": info.key, **changes})


# The lock


def test_a_lock_holds_every_key_and_digest(here: Path, penultimate) -> None:
    result = penultimate("cache", "pin", "study.toml", "--json")
    assert result.status == 0, result.err
    store = open_store()
    wanted = {info.key: store.read(info.key).content_digest for info in store.list()}
    rows = json.loads(result.out)
    assert {row["key"]: row["content_digest"] for row in rows} == wanted
    assert [row["status"] for row in rows] == ["new", "new"]
    study = load_study("study.toml")
    assert {pin.fingerprint: pin.content_digest for pin in study.lock} == wanted
    assert set(pins_of(study)) == {(NET, "colours", "train"), (NET, "colours", "test")}
    text = (here / "study.lock").read_text()
    assert text.startswith("# Which cached features study.toml uses")
    again = penultimate("cache", "pin", "study.toml", "--json")
    assert [row["status"] for row in json.loads(again.out)] == ["unchanged", "unchanged"]
    assert (here / "study.lock").read_text() == text


def test_a_lock_comes_back_as_it_was_written(tmp_path: Path) -> None:
    odd = ['qu"ote', "back\\slash", "ümläut 🐝", "tab\tand\nline", "\x7f", "a]] # b"]
    pins = [
        PinTable(backbone=name, dataset=name, split=split, fingerprint="0" * 64, content_digest=digest)
        for name in odd
        for split, digest in (("train", None), ("test", "f" * 64))
    ]
    write_lock(tmp_path / "odd.lock", pins)
    assert sorted(read_lock(tmp_path / "odd.lock"), key=lambda p: p.place) == sorted(
        pins, key=lambda p: p.place
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a lock of version 1"),
        ("version = 2", "lock version 2, this version reads 1; update penultimate"),
        ("version = 1\nextra = 3", "not a lock"),
        ("version = 1\npin = 3", "not a lock"),
        ("nonsense", "not TOML"),
        ('version = 1\n[[pin]]\nbackbone = "a"', "pin[1].dataset: missing"),
        (
            'version = 1\n[[pin]]\nbackbone = "a"\ndataset = "b"\nsplit = "test"\nfingerprint = "xyz"',
            "pin[1].fingerprint: ",
        ),
        (
            "version = 1\n"
            + '[[pin]]\nbackbone = "a"\ndataset = "b"\nsplit = "test"\nfingerprint = "01234567"\n' * 2,
            "a / b / test is pinned twice",
        ),
    ],
)
def test_a_lock_that_is_none_is_refused(here: Path, penultimate, text: str, said: str) -> None:
    (here / "study.lock").write_text(text)
    result = penultimate("probe", "study.toml")
    assert result.status == 2
    assert said in result.errors[0]
    assert result.errors[0].startswith("study.lock: ")


def test_what_a_lock_pins_beyond_the_study_is_passed_over(here: Path, penultimate) -> None:
    penultimate("cache", "pin", "study.toml")
    lock = lock_file(here / "study.toml")
    gone = PinTable(backbone="gone", dataset="colours", split="test", fingerprint="0" * 64)
    write_lock(lock, [*read_lock(lock), gone])
    assert penultimate("probe", "study.toml").status == 0
    assert penultimate("cache", "pin", "study.toml").status == 0
    assert "gone" not in lock.read_text()


def test_nothing_cached_is_nothing_to_pin(workshop, penultimate, monkeypatch) -> None:
    workshop.images()
    workshop.study()
    monkeypatch.chdir(workshop.folder)
    result = penultimate("cache", "pin", "study.toml")
    assert (result.status, len(result.errors)) == (2, 1)
    assert "none of its features are cached here" in result.errors[0]
    assert not (workshop.folder / "study.lock").exists()


# Pins of the study file


def test_mistakes_of_pins_are_listed(here: Path, workshop) -> None:
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": "0123456789"}
    (info,) = open_store().find(split="train")
    write_lock(here / "study.lock", [pin_of(info)])
    tables = [
        pin,
        pin,
        {**pin, "dataset": "colour"},
        {**pin, "backbone": "another"},
        {**pin, "split": "train", "fingerprint": "f" * 12},
    ]
    with pytest.raises(StudyError) as caught:
        workshop.load({"pin": tables})
    said = "\n".join(caught.value.mistakes)
    assert "pin[2]: " in said
    assert "is pinned twice" in said
    assert "pin[3].dataset: 'colour' is not in the study; did you mean 'colours'?" in said
    assert "pin[4].backbone: 'another' is not in the study" in said
    assert f"is pinned as ffffffffffff here and as {info.key[:12]} in the lock" in said
    for wrong in ({"split": "dev"}, {"fingerprint": "0123"}, {"fingerprint": "0123456G"}, {"colour": 1}):
        with pytest.raises(StudyError, match=r"pin\[1\]"):
            workshop.load({"pin": [{**pin, **wrong}]})


def test_a_fingerprint_in_the_study_chooses(doubt, workshop) -> None:
    for info in doubt:
        pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": info.key[:8]}
        study = workshop.load({"pin": [pin]})
        (planned,) = plan(study, stages=STAGES).of("probe")
        assert planned.job.entries["test"] == info.key


def test_a_fingerprint_and_a_lock_say_one_thing_together(here: Path, workshop) -> None:
    (info,) = open_store().find(split="test")
    write_lock(here / "study.lock", [pin_of(info)])
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": info.key[:8]}
    study = workshop.load({"pin": [{**pin, "content_digest": "0" * 64}]})
    (merged,) = pins_of(study).values()
    assert (merged.fingerprint, merged.content_digest) == (info.key, "0" * 64)


def test_too_little_of_a_key_is_told_in_words(here: Path, workshop) -> None:
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": "0123"}
    with pytest.raises(StudyError) as caught:
        workshop.load({"pin": [pin]})
    (line,) = caught.value.mistakes
    assert "pin[1].fingerprint: '0123' is not the first 8 to 64 digits (0-9, a-f) of a key" in line


# Several entries match


def test_without_a_terminal_doubt_is_an_error_that_helps(doubt, penultimate) -> None:
    result = penultimate("probe", "study.toml")
    assert (result.status, len(result.errors)) == (2, 1)
    (line,) = result.errors
    assert line.startswith(f"colours/test through {NET}: 2 cached entries match: ")
    for info in doubt:
        assert re.search(rf"{info.key[:12]} \(images [0-9a-f]{{12}}, 6 rows\)", line)
    command = re.search(r"`penultimate (cache pin study.toml [0-9a-f]{12})`", line)
    assert command
    assert penultimate(*command[1].split()).status == 0
    assert penultimate("probe", "study.toml").status == 0


def test_every_command_with_the_study_reads_the_lock(doubt, penultimate, tmp_path: Path) -> None:
    commands = [
        ("status", "study.toml"),
        ("plan", "study.toml"),
        ("cache", "push", str(tmp_path / "remote"), "--study", "study.toml"),
        ("cache", "verify", "--study", "study.toml"),
        ("cache", "gc", "--keep", "study.toml", "--dry-run"),
        ("probe", "study.toml"),
        ("join", "study.toml"),
    ]
    for words in commands:
        assert "2 cached entries match" in penultimate(*words).errors[0], words
    _, new = doubt
    assert penultimate("cache", "pin", "study.toml", new.key[:10]).status == 0
    for words in commands:
        result = penultimate(*words)
        assert result.status == 0, (words, result.err)
    (record,) = Ledger(load_study("study.toml").output).history().finished.values()
    assert record.result["entries"]["test"] == new.key
    sent = json.loads(penultimate("cache", "list", "--remote", str(tmp_path / "remote"), "--json").out)
    assert {row["key"] for row in sent} == set(record.result["entries"].values())


def test_the_question_travels_whole(doubt, cached: Study) -> None:
    with pytest.raises(AmbiguousEntriesError) as caught:
        plan(cached, stages=STAGES)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.choices) == (str(caught.value), caught.value.choices)


@contextlib.contextmanager
def terminal(*words: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The command on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: str, seconds: float = 60.0) -> str:
    """What a terminal shows, up to some text."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:  # the other side was closed
                break
    assert text in shown, shown
    return shown


@pytest.mark.parametrize("remember", [True, False])
def test_on_a_terminal_doubt_is_asked_about(doubt, here: Path, remember: bool) -> None:
    with terminal("probe", "study.toml", "--jobs", "1") as (screen, process):
        shown = read_until(screen, "which one is meant")
        numbered = re.findall(r"(\d)  ([0-9a-f]{12})  images", shown)
        assert {key for _, key in numbered} == {info.key[:12] for info in doubt}
        number, key = numbered[1]
        os.write(screen, b"7\n")
        read_until(screen, "7 is not in the range")
        os.write(screen, number.encode() + b"\n")
        read_until(screen, "study.lock? [Y/n]")
        os.write(screen, b"\n" if remember else b"n\n")
        read_until(screen, "1 jobs done")
        assert process.wait(timeout=30) == 0
    study = load_study("study.toml")
    assert [pin.fingerprint[:12] for pin in study.lock] == ([key] if remember else [])
    (record,) = Ledger(study.output).history().finished.values()
    assert record.result["entries"]["test"].startswith(key)


def test_scripts_are_never_asked(doubt) -> None:
    with terminal("probe", "study.toml", "--quiet") as (screen, process):
        read_until(screen, "2 cached entries match")
        assert process.wait(timeout=30) == 2


def test_the_words_of_others_do_not_steer_a_terminal(here: Path, cached: Study) -> None:
    store = open_store()
    (info,) = store.find(split="test")
    entry = store.read(info.key)
    facts = {
        name: entry.metadata[name] for name in ("coordinates", "class_names", "multi_label", "expected_rows")
    }
    parts = {**entry.key.ingredients, "weights_sha256": "0" * 64}
    provenance = {"written": "2026\x1b[2J", "user": "eve\r", "host": "\u202ehost"}
    with store.writer(CacheKey.from_ingredients(parts), {**facts, "provenance": provenance}) as writer:
        columns = entry.row_metadata
        ids, labels = list(entry.ids), np.array(entry.labels)
        writer.append(np.array(entry.features), labels, ids, stop=len(ids), row_metadata=columns)
        writer.publish()
    shutil.rmtree(here / "colours")
    with pytest.raises(AmbiguousEntriesError) as caught:
        plan(cached, stages=STAGES)
    (line,) = caught.value.mistakes
    assert "by eve? on ?host" in line
    assert line.isprintable()


# Pinned values


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


# Where the images are


def test_images_that_give_another_key_than_pinned_are_refused(here: Path, penultimate) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    pinned = {pin.split: pin.fingerprint for pin in load_study("study.toml").lock}
    image = here / "colours/test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    for command in ("run", "probe", "status"):
        result = penultimate(command, "study.toml")
        assert (result.status, len(result.errors)) == (2, 1)
        (line,) = result.errors
        assert line.startswith(f"colours/test through {NET}: pinned as {pinned['test'][:12]}, but images, ")
        assert "(1 images other bytes, such as 'test/red/1.ppm')" in line
    assert not (here / "out" / "results").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extract": {"crop": "center"}}, 'preprocessing.crop: "whole" -> "center"'),
        ({"backbone": [{"name": NET, "weights": "random", "seed": 1, "size": 32}]}, "weights_sha256: "),
    ],
)
def test_settings_that_give_another_key_are_named(here: Path, workshop, penultimate, change, said) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    workshop.study(change)
    result = penultimate("probe", "study.toml")
    assert result.status == 2
    assert len(result.errors) == 2
    assert all(said in line for line in result.errors)


def test_other_labels_and_another_order_are_named(here: Path, penultimate) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    csv = here / "colours" / "split.csv"
    text = csv.read_text()
    csv.write_text(text.replace("test/red/0.ppm,red", "test/red/0.ppm,green"))
    (line,) = penultimate("probe", "study.toml").errors
    assert "(other labels, class names or groups)" in line
    first, second, third, *rest = text.splitlines()
    csv.write_text("\n".join([first, third, second, *rest]) + "\n")
    (line,) = penultimate("probe", "study.toml").errors
    assert "the images stand in another order" in line
    csv.write_text("\n".join([first, third, *rest]) + "\n")
    (line,) = penultimate("probe", "study.toml").errors
    assert "1 images only in the pinned entry" in line


def test_pins_that_cannot_be_kept_change_when_everything_is_pinned_anew(here: Path, penultimate) -> None:
    """The way out that the error names, after labels were mended on purpose."""
    assert penultimate("cache", "pin", "study.toml").status == 0
    csv = here / "colours" / "split.csv"
    csv.write_text(csv.read_text().replace("test/red/0.ppm,red", "test/red/0.ppm,green"))
    assert penultimate("run", "study.toml").status == 2
    assert penultimate("cache", "pin", "study.toml").status == 2
    assert [pin.split for pin in load_study("study.toml").lock] == ["test", "train"]
    assert penultimate("extract", "study.toml").status == 0
    again = json.loads(penultimate("cache", "pin", "study.toml", "--json").out)
    assert {row["split"]: row["status"] for row in again} == {"test": "changed", "train": "unchanged"}


def test_a_key_that_the_images_speak_against_is_not_pinned(
    here: Path, cached: Study, workshop, penultimate
) -> None:
    (old,) = open_store().find(split="test")
    image = here / "colours/test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    workshop.publish(cached)
    result = penultimate("cache", "pin", "study.toml", old.key[:10])
    assert (result.status, len(result.errors)) == (2, 1)
    assert "1 images other bytes" in result.errors[0]
    assert not (here / "study.lock").exists()


def test_a_key_of_another_study_is_not_pinned(here: Path, workshop, penultimate) -> None:
    (info,) = open_store().find(split="test")
    workshop.study({"backbone": [{"name": NET, "weights": "random", "seed": 3, "size": 32}]})
    result = penultimate("cache", "pin", "study.toml", info.key[:10])
    assert (result.status, len(result.errors)) == (2, 1)
    assert "is no entry that tiny asks for" in result.errors[0]


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
