"""Runs some work with a fault, and again without, for one fault after the other; `faults.c` lies before libc.

Arguments: WORK FOLDER KIND NUMBER..., where WORK is "write" (an entry, as `crash_program` does) or "move" (an
entry from one store to others and back out of the trash). Answers each number by a line of JSON: how the run
with the fault at that operation ended and what it said, how the next one did, and the SHA-256 of every file
that could be taken for a whole one after each. Number 0 is no fault.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from cache import CacheError, CacheKey, KeyMissingError, Store, attempts
from cache.hand_over import export_entry, import_entry
from cache.maintain import restore
from cache.remote import Remote
from cache.share import pull, push
from tests.cache import crash_program

ROWS = 24
KEY = CacheKey.from_ingredients({"backbone": "resnet50", "recipe_version": 1})


def write(root: Path) -> int:
    """Write an entry."""
    sys.argv = ["crash_program", str(root), str(ROWS), "0"]
    return crash_program.main()


def move(root: Path) -> int:
    """Push an entry and pull it, export it and import it, remove it and take it back."""
    source = Store(root.parent / "source", private=root.parent / "source-private")
    theirs = Store(root / "pulled", private=root / "private")
    others = Store(root / "imported", private=root / "private")
    remote, letter = Remote(str(root / "remote")), root / "letter.h5"
    try:
        push(source, remote, [KEY])
        pull(theirs, remote, [KEY])
        if not letter.exists():
            export_entry(source, KEY, letter)
        with contextlib.suppress(KeyMissingError):
            restore(others, KEY)
        import_entry(others, letter)
        others.remove(KEY)
        entries = [theirs.read(KEY), restore(others, KEY)]
    except CacheError as error:
        sys.stdout.write(f"{error}\n")
        return 3
    (content,) = {entry.content_digest for entry in entries}
    sys.stdout.write(f"{content}\n")
    return 0


def whole(root: Path) -> Iterator[Path]:
    """Yield every file that somebody could take for a whole entry."""
    for store in (root, root / "pulled", root / "imported"):
        yield from (store / "entries").glob("??/*.h5")
    for manifest in (root / "remote" / "manifests").glob("*.json"):
        plain = json.loads(manifest.read_bytes())
        yield root / "remote" / "data" / plain["key"] / f"{plain['sha256']}.h5"
    yield from root.glob("letter.h5")


def child(work: str, root: Path, kind: str, number: int, output: int) -> NoReturn:
    """Be one run."""
    os.dup2(output, 1)
    if kind:
        log = root.with_name(f"{root.name}.log")
        os.environ.update(FAULT_ROOT=str(root), FAULT_LOG=str(log), FAULT_AT=str(number), FAULT_KIND=kind)
    status = 70
    try:
        status = {"write": write, "move": move}[work](root)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def run(work: str, root: Path, kind: str, number: int) -> tuple[int, str]:
    """Do the work in a process of its own; return its status and what it said."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(work, root, kind, number, sending)
    os.close(sending)
    with os.fdopen(receiving, encoding="utf-8") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def seen(root: Path) -> list[str]:
    """Return the SHA-256 of every file that could be taken for a whole one."""
    return sorted({hashlib.sha256(path.read_bytes()).hexdigest() for path in whole(root)})


def main() -> int:
    work, folder, kind = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    attempts.FIRST_PAUSE_SECONDS = 0.01
    if work == "move":
        run("write", folder / "source", "", 0)
    for number in map(int, sys.argv[4:]):
        root = folder / f"{kind}-{number}"
        first = run(work, root, kind, number)
        between = seen(root)
        again = run(work, root, "", 0)
        answer = {"number": number, "first": first, "seen": between, "again": again, "left": seen(root)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
