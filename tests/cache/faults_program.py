"""Runs `crash_program` with a fault, and again without, for one fault after the other; `faults.c` lies before libc.

Arguments: FOLDER KIND NUMBER... Answers each number by a line of JSON: how the run with the fault at that
operation ended and what it said, how the next one did, and the SHA-256 of what could be seen after each.
Number 0 is no fault.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from tests.cache import crash_program

ROWS = 24


def child(root: Path, kind: str, number: int, output: int) -> NoReturn:
    """Be one run of the program."""
    os.dup2(output, 1)
    if kind:
        log = root.with_name(f"{root.name}.log")
        os.environ.update(FAULT_ROOT=str(root), FAULT_LOG=str(log), FAULT_AT=str(number), FAULT_KIND=kind)
    sys.argv = ["crash_program", str(root), str(ROWS), "0"]
    status = 70
    try:
        status = crash_program.main()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def run(root: Path, kind: str, number: int) -> tuple[int, str]:
    """Run the program in a process of its own; return its status and what it said."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(root, kind, number, sending)
    os.close(sending)
    with os.fdopen(receiving, encoding="utf-8") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def visible(root: Path) -> list[str]:
    """Return the SHA-256 of every published file."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "entries").glob("??/*.h5")]


def main() -> int:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    for number in map(int, sys.argv[3:]):
        root = folder / f"{kind}-{number}"
        first = run(root, kind, number)
        seen = visible(root)
        again = run(root, "", 0)
        answer = {"number": number, "first": first, "seen": seen, "again": again, "left": visible(root)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
