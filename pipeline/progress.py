"""What people see while work goes on: bars and lines on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from stages.records import Progress

LOG_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""


class Reporter:
    """Says lines and shows bars; silent where asked to be.

    Parameters
    ----------
    quiet : bool
        Say nothing but errors.
    stream : text stream, optional
        Default standard error, so that standard output stays fit for pipes.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stderr

    def say(self, line: str) -> None:
        """Print one line, above the bar where one is shown."""
        if not self.quiet:
            self.complain(line)

    def complain(self, line: str) -> None:
        """Print one line even where quiet."""
        if self.stream.isatty():
            from tqdm import tqdm

            tqdm.write(line, file=self.stream)
        else:  # a log has no bar to draw around
            print(line, file=self.stream, flush=True)

    @contextmanager
    def bar(self, title: str, unit: str = "") -> Iterator[Progress]:
        """Show a bar; the callback inside takes (done, total, note). A log gets a line now and then."""
        if not self.quiet and not self.stream.isatty():
            yield self._lines(title, unit)
            return
        from tqdm import tqdm

        with tqdm(
            desc=title,
            unit=unit and f" {unit}",
            file=self.stream,
            disable=self.quiet,
            delay=0.5,
            dynamic_ncols=True,
            leave=False,
        ) as bar:

            def update(done: int, total: int, note: str = "") -> None:
                bar.total = total
                if note:
                    bar.set_postfix_str(note[-80:], refresh=False)
                bar.update(done - bar.n)

            yield update

    def _lines(self, title: str, unit: str) -> Progress:
        """Return a callback that prints a line every so often."""
        last = time.monotonic()

        def update(done: int, total: int, note: str = "") -> None:
            nonlocal last
            if time.monotonic() - last >= LOG_SECONDS:
                last = time.monotonic()
                self.say(f"{title}: {done} of {total} {unit}: {note}".rstrip(": "))

        return update


SILENT = Reporter(quiet=True)
"""For notebooks and tests."""
