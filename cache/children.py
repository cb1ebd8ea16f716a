"""Child processes: what libhdf5 does happens in them, so that nothing it does reaches this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import CacheWriteError
from cache.system import advice

_HOME = str(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True)
class Answer:
    """What a child said before it ended."""

    values: dict[str, Any]
    """Its line of JSON; empty where it gave none."""
    failure: str
    """Why there is no usable line; empty where there is one."""
    ended_by: str = ""
    """The signal that ended it, where one did: "SIGKILL" is how systems answer to too much memory."""


def run_child(module: str, arguments: Sequence[str], timeout: float | None = None) -> Answer:
    """Run ``python -m MODULE`` of this very package and return the JSON object that it prints.

    The child starts in an empty folder, loads no HDF5 plugins, and its messages stay with us.
    """
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join([_HOME, *(str(Path(folder).absolute()) for folder in inherited)])
    environment = {
        **os.environ,
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            child = subprocess.run(  # noqa: S603
                [sys.executable, "-P", "-m", module, *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return Answer({}, f"the child took longer than {timeout:g} s")
    with contextlib.suppress(ValueError):
        values = json.loads(child.stdout)
        if isinstance(values, dict):
            return Answer(values, "")
    ended_by = ""
    if child.returncode < 0:
        with contextlib.suppress(ValueError):
            ended_by = signal.Signals(-child.returncode).name
    return Answer({}, f"the child was ended by {ended_by}" if ended_by else _why(child), ended_by)


def run_builder(log: Path, target: Path) -> str:
    """Build an entry from a staging log in a child process and return its index digest.

    Raises
    ------
    CacheWriteError
        The child refused or died; the target, if any, was removed.
    """
    answer = run_child("cache.build", [str(log.absolute()), str(target.absolute())])
    if "index_sha256" in answer.values:
        return str(answer.values["index_sha256"])
    with contextlib.suppress(OSError):
        target.unlink()
    reason = answer.failure or str(answer.values.get("error"))
    number = answer.values.get("errno")
    if answer.ended_by == "SIGKILL":
        what_now = "it most likely ran out of memory: free memory, then run again"
    else:
        what_now = advice(number) if number else "free memory and space, then run again"
    raise CacheWriteError(number, f"building the entry failed: {reason}: {what_now}", str(target.parent))


def answer_parent(values: dict[str, Any]) -> None:
    """Say the child's one line."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _why(child: subprocess.CompletedProcess[bytes]) -> str:
    """Say in a few words why a child gave no line."""
    last = child.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
    return f"the child ended with status {child.returncode}: {ascii(last[0])[:160]}"
