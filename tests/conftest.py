"""What every test gets: a cache and a state folder of its own, never those of the person who runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Threads that spin while they wait eat the time of the tests beside them; set before anything reads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FOLDERS = {"PENULTIMATE_CACHE": "cache", "XDG_STATE_HOME": "state"}


@pytest.fixture(scope="session", autouse=True)
def _session_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For fixtures that outlive a test."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in FOLDERS.items():
            patch.setenv(variable, str(home / name))
        patch.delenv("PENULTIMATE_WEIGHTS", raising=False)  # a person's own checkpoints are no part of a test
        patch.delenv("PENULTIMATE_DATASETS", raising=False)  # nor are their data sets
        yield


@pytest.fixture(autouse=True)
def _own_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _session_folders: None
) -> Path:
    """For the test itself."""
    home = tmp_path_factory.mktemp("home")
    for variable, name in FOLDERS.items():
        monkeypatch.setenv(variable, str(home / name))
    return home
