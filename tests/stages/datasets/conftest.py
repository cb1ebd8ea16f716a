"""Releases of the paper's data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.datasets.releases import RELEASES


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """One set after the other: its name, and where its release lies."""
    RELEASES[request.param](tmp_path)
    return request.param, tmp_path
