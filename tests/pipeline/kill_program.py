"""Runs the command line over and over in processes that can be ended at any moment.

Loading torch takes seconds, the work to be interrupted takes less. So this process loads what an
extraction loads, forks for each command, and the child runs `pipeline.cli.main` in a process group of its
own, as a shell would have it. One JSON object a line: {"words": [...], "log": PATH, "cache": PATH} is answered by
{"pid": ...}, {"wait": PID} by {"status": ...} as `subprocess` has it once the command ended, and {"gather": PID}
by {"gone": PID} once every process of its group ended: an orphan that builds an entry, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from typing import Any, NoReturn

import timm

import stages.extract
import stages.vision.networks

PRELOADED = (stages.extract, stages.vision.networks, timm)
PR_SET_CHILD_SUBREAPER = 36


def child(words: list[str], log: str, cache: str) -> NoReturn:
    """Become the command; its output goes to a file."""
    from pipeline.cli import main

    os.setsid()
    say({"pid": os.getpid()})
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ["PENULTIMATE_CACHE"] = cache
    sys.argv = ["penultimate", *words]
    status = 70
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def say(answer: dict[str, Any]) -> None:
    """Tell the test one thing, in one write."""
    os.write(1, json.dumps(answer).encode() + b"\n")


def await_group(group: int) -> None:
    """Wait for every process of a group that is left: orphans are handed to this process."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    say({"ready": os.getpid()})
    for line in sys.stdin:
        order = json.loads(line)
        if "gather" in order:
            await_group(order["gather"])
            say({"gone": order["gather"]})
            continue
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            say({"status": os.waitstatus_to_exitcode(status)})
            continue
        if os.fork() == 0:
            child(order["words"], order["log"], order["cache"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
