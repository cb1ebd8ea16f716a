"""The lock beside a study: what it holds, and what is no lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cache_folder import open_store
from pipeline.config import load_study
from pipeline.lock import lock_file, read_lock, write_lock
from pipeline.pins import pins_of
from pipeline.tables import PinTable
from tests.pipeline.pinned import NET


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
