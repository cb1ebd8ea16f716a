"""What a worker process does besides its jobs: it keeps to its threads, ends when asked, outlives nobody.

SIGTERM breaks off the job under way, which may save what it has, and no further job is begun. The terminal's
Ctrl-C and its hanging up reach workers too, but are for the process that started them, which then asks them. A worker
whose parent is gone (killed, out of memory) asks itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import EXIT_INTERRUPTED
from pipeline.job_output import kept_output

T = TypeVar("T")

ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals that ask for an end; a worker is born with them blocked."""

_LOOK_SECONDS = 0.5
"""Between two looks for the parent."""


@dataclass
class _State:
    """Of this process as a worker."""

    busy: bool = False
    asked: bool = False
    """To end."""
    threads: int | None = None
    """That its jobs may use; None = this process is no worker."""


_state = _State()


def enter(threads: int, parent: int) -> None:
    """Become a worker: limit what is loaded already to the threads, listen to signals, watch the parent."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=threads)
    _state.threads = threads
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def enter_alone(threads: int, ending: Collection[signal.Signals]) -> None:
    """Become a worker that nobody of ours has started (Slurm has): these signals ask for an end."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=threads)
    _state.threads = threads
    for number in ending:
        signal.signal(number, _on_sigterm)


def work(function: Callable[[T], Any], job: T, output: Path | None = None) -> Any:
    """Call the function on a job; a worker that was asked to end raises KeyboardInterrupt instead.

    What the job prints is kept in ``output`` while it runs.
    """
    _state.busy = True
    try:
        if _state.asked:
            raise KeyboardInterrupt
        with kept_output(output):
            return function(job)
    finally:
        _state.busy = False


def threads_of_worker() -> int | None:
    """Return how many threads a job may use in this process; None where it is no worker."""
    return _state.threads


def _on_sigterm(_signal: int, _frame: object) -> None:
    """Break off the job, once: whoever asks twice must not break off the saving."""
    first, _state.asked = not _state.asked, True
    if first and _state.busy:
        raise KeyboardInterrupt


def _watch(parent: int) -> None:
    """End this process, after what its job has to save, once the parent is gone."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    while _state.busy or not _state.asked:
        time.sleep(_LOOK_SECONDS)
    os._exit(EXIT_INTERRUPTED)
