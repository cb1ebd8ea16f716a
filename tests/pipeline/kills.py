"""What the tests that end commands are made of: a machine to work on, commands under way, and their traces."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Phase = Literal["before", "staging", "building", "publishing", "between"]
Victim = Literal["group", "command", "builder"]


@dataclass(frozen=True)
class Traces:
    """What lies in a cache at one moment, by name and size."""

    entries: frozenset[str]
    """Keys of the published files."""
    announced: frozenset[str]
    """Keys with a provenance."""
    staged: frozenset[tuple[str, int]]
    """Files on their way and their sizes."""

    def since(self, before: Traces) -> Phase:
        """Say in which phase an attempt is or was ended, from what it changed."""
        fresh = {name for name, _ in self.staged - before.staged}
        open_keys = {Path(name).parent.name for name, _ in self.staged}
        if self.announced - self.entries - (before.announced - before.entries):
            return "publishing"
        if (self.entries - before.entries) & open_keys:
            return "publishing"
        if any(".h5" in Path(name).name for name in fresh):
            return "building"
        if fresh:
            return "staging"
        return "between" if self.entries - before.entries else "before"


@dataclass
class Machine:
    """A folder with a study, and its cache, in which commands are run and ended."""

    folder: Path
    cache: Path
    log: Path
    expected: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every entry, by key, of a run that nobody disturbed."""
    seen: dict[tuple[str, int, int, int], str] = field(default_factory=dict)

    @property
    def features(self) -> Path:
        return self.cache / "features"

    def traces(self) -> Traces:
        """Look at the cache without touching it."""
        published = [Path(name) for name, _ in files_below(self.features / "entries")]
        return Traces(
            entries=frozenset(path.stem for path in published if path.suffix == ".h5"),
            announced=frozenset(path.stem for path in published if path.suffix == ".json"),
            staged=frozenset(files_below(self.features / "staging")),
        )

    def said(self) -> str:
        """What commands told."""
        return self.log.read_text(encoding="utf-8")

    def check_visible(self) -> None:
        """Whatever can be seen under an entry's name is what an undisturbed run has there."""
        for name, size in files_below(self.features / "entries"):
            path = Path(name)
            if path.suffix == ".h5":
                status = path.stat()
                state = (path.stem, status.st_ino, size, status.st_mtime_ns)
                if state not in self.seen:
                    self.seen[state] = hashlib.sha256(path.read_bytes()).hexdigest()
                assert self.seen[state] == self.expected[path.stem], f"{path} is visible and not whole"

    def failures(self) -> list[str]:
        """Why jobs failed, as recorded; records that can be seen are whole too."""
        paths = sorted((self.folder / "out").glob("results/**/*.json"))
        records = [json.loads(path.read_bytes()) for path in paths]
        assert {record["status"] for record in records} <= {"complete", "failed"}
        return [str(record["reason"]) for record in records if record["status"] == "failed"]

    def digests(self) -> dict[str, str]:
        """SHA-256 of every entry, by key."""
        paths = sorted((self.features / "entries").glob("??/*.h5"))
        return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def files_below(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of the files two levels down; what vanishes meanwhile is passed over."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for inner in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for item in os.scandir(inner.path):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((item.path, item.stat().st_size))
    return found


class Forker:
    """Runs commands in processes that are there at once; see `kill_program`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._answer().keys() == {"ready"}

    def start(self, words: list[str], machine: Machine) -> int:
        """Start a command and return its process id, which is its group's as well."""
        self._order({"words": words, "log": str(machine.log), "cache": str(machine.cache)})
        return int(self._answer()["pid"])

    def wait(self) -> int:
        """Wait for the command and return its status."""
        return int(self._answer()["status"])

    def gather(self, pid: int) -> None:
        """Wait until nobody of its group is left."""
        self._order({"gather": pid})
        assert self._answer() == {"gone": pid}

    def run(self, words: list[str], machine: Machine) -> int:
        """Run a command to its end."""
        self.start(words, machine)
        return self.wait()

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return answer


@dataclass
class Attempt:
    """One command under way, however it was started."""

    pid: int
    wait: Callable[[], int]
    gather: Callable[[], None]

    def alive(self) -> bool:
        """Whether the command has not ended yet."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
            return text.rpartition(")")[2].split()[0] != "Z"
        return False

    def builder(self) -> int | None:
        """Return the process that builds an entry just now."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                fields = (folder / "stat").read_text(encoding="ascii", errors="replace")
                if int(fields.rpartition(")")[2].split()[1]) == self.pid:
                    return int(folder.name)
        return None

    def end(self, victim: Victim) -> bool:
        """Send SIGKILL; False where the victim was gone already."""
        with contextlib.suppress(ProcessLookupError):
            if victim == "group":
                os.killpg(self.pid, signal.SIGKILL)
                return True
            target = self.builder() if victim == "builder" else self.pid
            if target is not None:
                os.kill(target, signal.SIGKILL)
                return True
        return False
