"""Runs programs as other users of this machine, each with an umask, a home and a view of the mounts of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GROUP = 20100
"""The group that both users are members of, beside one of their own each."""


@dataclass(frozen=True)
class User:
    """A user who has a number and need not have a name."""

    number: int
    umask: int
    groups: tuple[int, ...] = (GROUP,)


def start(
    user: User, home: Path, arguments: list[str], read_only: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Start a Python program as a user; the folder ``read_only`` is, for it alone, mounted read-only."""
    state = home / f"state of {user.number}"
    if not state.exists():
        state.mkdir(mode=0o700)
        os.chown(state, user.number, user.number)
    script = f"{_mounts(home, read_only)} umask {user.umask:o}; exec " + shlex.join(
        [
            *f"setpriv --reuid {user.number} --regid {user.number} --groups".split(),
            ",".join(map(str, user.groups or (user.number,))),
            *f"--inh-caps=-all --no-new-privs {sys.executable} -B".split(),
            *arguments,
        ]
    )
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"set -e; {script}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "XDG_STATE_HOME": str(state), "OMP_NUM_THREADS": "1", **environment},
    )


def need_users() -> None:
    """Skip a test where this process cannot be other users."""
    if reason := _hindrance():
        pytest.skip(reason)


@cache
def _hindrance() -> str:
    """Why nothing can be run as another user here; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can start programs as two other users"
    if missing := [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]:
        return f"there is no {missing[0]} here"
    private = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(private, capture_output=True, check=False).returncode:
        return "mounts of one's own are not permitted here"
    return ""


def _mounts(home: Path, read_only: Path | None) -> str:
    """Return the commands that make, in a name space of its own, what a user needs readable."""
    lines = []
    needed = sorted({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), REPOSITORY})
    closed = sorted({folder for path in needed if (folder := _closed(path))})
    for number, path in enumerate(path for path in needed if _closed(path)):
        (home / f"mount {number}").mkdir(exist_ok=True)
        lines.append(["mount", "--bind", str(path), str(home / f"mount {number}")])
    lines += [["mount", "-t", "tmpfs", "-o", "mode=755", "none", str(folder)] for folder in closed]
    for number, path in enumerate(path for path in needed if _closed(path)):
        lines.append(["mkdir", "-p", str(path)])
        lines.append(["mount", "--bind", str(home / f"mount {number}"), str(path)])
    if read_only is not None:
        lines.append(["mount", "--bind", str(read_only), str(read_only)])
        lines.append(["mount", "-o", "remount,bind,ro", str(read_only)])
    return "umask 022; " + "".join(f"{shlex.join(line)}; " for line in lines)


def _closed(path: Path) -> Path | None:
    """Return the topmost folder on the way that others may not enter: somebody's private home, say."""
    for folder in [*reversed(path.parents), path]:
        if folder.stat().st_mode & 0o005 != 0o005 and not (folder != path and folder.stat().st_mode & 0o001):
            return folder
    return None
