"""What the tests that end commands are made of: a machine to work on, commands under way, and their traces."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Phase = Literal["before", "staging", "building", "publishing", "between"]
Victim = Literal["group", "command", "builder"]
POLL_SECONDS = 0.0005
PROGRAM = Path(__file__).with_name("kill_program.py")


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


def fields_of(process: Path) -> list[str]:
    """Return what /proc tells of a process or thread behind its name: state, parent, group, ..."""
    return (process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


class Forker:
    """Runs commands in processes that are there at once; see `kill_program`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._answer().keys() == {"ready"}

    def start(self, words: list[str], machine: Machine) -> int:
        """Start a command and return its process id, which is its group's as well."""
        self._order({"words": words, "log": str(machine.log), "cache": str(machine.cache)})
        return int(self._answer()["pid"])

    def wait(self, pid: int) -> int:
        """Wait for a command and return its status."""
        self._order({"wait": pid})
        return int(self._answer()["status"])

    def gather(self, pid: int) -> None:
        """Wait until nobody of its group is left."""
        self._order({"gather": pid})
        assert self._answer() == {"gone": pid}

    def run(self, words: list[str], machine: Machine) -> int:
        """Run a command to its end."""
        return self.wait(self.start(words, machine))

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return answer


@contextlib.contextmanager
def forking(environment: Mapping[str, str], folder: Path) -> Iterator[Forker]:
    """Run commands in processes that have torch already, all in one folder and environment."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as process:
        yield Forker(process)
        assert process.stdin is not None
        process.stdin.close()


@dataclass
class Attempt:
    """One command under way, however it was started."""

    pid: int
    wait: Callable[[], int]
    gather: Callable[[], None]

    def alive(self) -> bool:
        """Whether the command has not ended yet."""
        with contextlib.suppress(OSError):
            return fields_of(Path(f"/proc/{self.pid}"))[0] != "Z"
        return False

    def builder(self) -> int | None:
        """Return the process that builds an entry just now."""
        for pid, _ in self._group():
            with contextlib.suppress(OSError):
                if b"cache.build" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return None

    def freeze(self) -> None:
        """Stop every process of the group, and return when none of them can do another thing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGSTOP)
            while any(states.strip("TZX") for _, states in self._group()):
                time.sleep(POLL_SECONDS)

    def thaw(self) -> None:
        """Let a frozen group go on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)

    def _group(self) -> Iterator[tuple[int, str]]:
        """Yield the number of every process of the group, and the states of its threads, a letter each."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                if int(fields_of(folder)[2]) == self.pid:
                    tasks = (folder / "task").iterdir()
                    yield int(folder.name), "".join(fields_of(task)[0] for task in tasks)

    def end(self, victim: Victim) -> bool:
        """Send SIGKILL, and let the others go on; False where the victim was gone already."""
        target = self.builder() if victim == "builder" else self.pid
        ended = False
        if target is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if victim == "group" else os.kill)(target, signal.SIGKILL)
                ended = True
        self.thaw()
        return ended
