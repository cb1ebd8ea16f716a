"""Freed memory is kept for the next step, and goes back to the system at the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json
import resource
from pathlib import Path

import numpy as np

from stages.vision.allocation import kept_memory

MEGABYTES = 64


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        np.full(MEGABYTES << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


before, small = faults(), resident()
with kept_memory():
    faults()
    inside, large = faults(), resident()
print(json.dumps({"before": before, "inside": inside, "kept": large - small, "left": resident() - small}))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory"
)
def test_memory_is_kept_inside_and_given_back_afterwards() -> None:
    small_pages = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[3], env=small_pages,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["inside"] < 1_000 < 10_000 < found["before"]
    assert found["kept"] > 50
    assert found["left"] < 10
