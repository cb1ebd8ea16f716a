"""`penultimate cache` and a remote that holds what is damaged, or nothing, or is full."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.cache_folder import cache_root
from tests.pipeline.wrong_things import entries, one_line, put


@pytest.fixture
def pushed(shop, penultimate):
    assert penultimate("cache", "push", "remote").status == 0
    shutil.rmtree(cache_root() / "features")
    return shop / "remote"


def data_of(remote: Path, name: str) -> Path:
    return next((remote / "data" / name).glob("*.h5"))


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "login page", "fifo", "device", "socket"])
def test_what_a_remote_holds_damaged_is_one_line(pushed, penultimate, kind):
    name = next((pushed / "manifests").glob("*.json")).stem
    data = data_of(pushed, name)
    put(data, kind, data.read_bytes())
    result = penultimate("cache", "pull", "remote", "--key", name)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith(f"remote/data/{name}/")
    assert f"cache push remote --key {name[:12]} --verify" in line
    assert entries() == []


@pytest.mark.parametrize("kind", ["empty", "login page", "fifo", "folder", "dangling"])
def test_an_unsound_manifest_is_one_line(pushed, penultimate, kind):
    manifest = next((pushed / "manifests").glob("*.json"))
    put(manifest, kind, b"")
    result = penultimate("cache", "pull", "remote", "--key", manifest.stem[:12])
    assert result.status in {2, 3}
    line = one_line(result)
    assert "remote" in line
    assert manifest.stem in line
    listed = penultimate("cache", "list", "--remote", "remote", "--json")
    assert len(json.loads(listed.out)) == 1, "the other one"
    (told,) = listed.err.splitlines()
    assert manifest.stem[:12] in told
    assert "left out" in told


def test_the_right_list_is_named_for_a_remote(pushed, penultimate):
    result = penultimate("cache", "pull", "remote", "--key", "ffff0000")
    assert (result.status, "cache list --remote remote`" in one_line(result)) == (2, True)


def test_a_full_remote_is_told_at_once(shop, penultimate, monkeypatch):
    from cache.filesystems import FileSystem

    def full(self, source, name, progress, *, replace):
        raise OSError(28, os.strerror(28), name)

    monkeypatch.setattr(FileSystem, "put", full)
    result = penultimate("cache", "push", "remote")
    assert result.status == 3
    line = one_line(result)
    assert line.startswith("remote: uploading data/")
    assert line.endswith("free space, then run again")
