"""Holding back the signals that end a process while a training step is under way.

A signal may arrive in the middle of a step, where the parameters are half updated and nothing can be saved.
So it is noted, the step is finished, the checkpoint is written, and only then is the signal answered.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class HeldSignals:
    """Notes SIGINT, SIGTERM and SIGHUP inside a ``with`` block and hands them on at its end.

    Whoever works in the block calls ``asked`` wherever work can be broken off. What the process does
    about the signal is what it would have done without this class: an exception, an end, nothing at all.
    Only a process's main thread hears of signals; in any other thread nothing is held and ``asked`` stays
    False.

    Examples
    --------
    >>> done = []
    >>> with HeldSignals() as held:
    ...     while len(done) < 3 and not held.asked():
    ...         done.append("step")
    >>> len(done)
    3
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._noted: signal.Signals | None = None

    def asked(self) -> bool:
        """Whether somebody wants this process to end."""
        return self._noted is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if callable(before) or before == signal.SIG_DFL:  # an ignored signal stays ignored
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._noted is not None:
            signal.raise_signal(self._noted)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Remember the first signal; the others ask for the same."""
        if self._noted is None:
            self._noted = signal.Signals(number)
