"""What was damaged, and what goes for good: nobody has to guess where an entry went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study

NET = "test_resnet.r160_in1k"


@pytest.fixture
def here(cached: Study, workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with images and cached features, and the current folder beside it."""
    monkeypatch.chdir(workshop.folder)
    return workshop.folder


def spoil(split: str) -> None:
    """Change a byte of an entry."""
    path = open_store().find_one(split=split).path
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


def test_a_missing_entry_that_was_damaged_is_told_later_too(here, penultimate) -> None:
    spoil("test")
    assert penultimate("cache", "verify").status == 1
    again = penultimate("cache", "verify")
    assert again.status == 0
    folder = cache_root() / "features" / "quarantine"
    assert f"note: 1 damaged files were set aside in {folder} before now" in again.err
    damaged = "what was there is damaged, and was set aside"
    probe = json.loads(penultimate("probe", "study.toml", "--json").out)
    assert [job["why"] for job in probe["waiting"]] == [f"test: {damaged}; extract or pull it"]
    jobs = json.loads(penultimate("plan", "study.toml", "--json").out)["jobs"]
    assert [job["why"] for job in jobs if job["state"] == "missing"] == [f"not in the cache: {damaged}"]
    (line,) = penultimate("cache", "push", "remote", "--study", "study.toml").errors
    assert line.endswith(f"{NET}/colours/test: {damaged}: run `penultimate extract study.toml`")
    freed = json.loads(penultimate("cache", "gc", "--grace", "0", "--json").out)["deleted"]
    assert freed["trash"] == 0
    assert freed["quarantine"] > 65536
    assert not list(folder.iterdir())
    assert "note:" not in penultimate("cache", "verify").err


def test_what_leaves_the_trash_for_good_is_listed_first(here, penultimate) -> None:
    (key,) = (info.key for info in open_store().find(split="train"))
    assert penultimate("cache", "remove", key).status == 0
    for _ in range(2):
        trial = penultimate("cache", "gc", "--grace", "0", "--dry-run")
        row = next(line for line in trial.out.splitlines() if line.startswith(key[:12]))
        assert "colours" in row
        assert "would be moved to the trash: 0 entries" in trial.out
    gone = json.loads(penultimate("cache", "gc", "--grace", "0", "--json").out)["deleted_entries"]
    assert [(row["key"], row["split"]) for row in gone] == [(key, "train")]
    assert not list((cache_root() / "features" / "trash").iterdir())
