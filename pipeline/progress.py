"""What people see while work goes on: bars and lines on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from stages.records import Progress


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
        """Show a bar; the callback inside takes (done, total, note)."""
        from tqdm import tqdm

        # A log file gets a line now and then, a terminal a moving bar.
        interval = 0.1 if self.stream.isatty() else 10.0
        with tqdm(
            desc=title,
            unit=unit and f" {unit}",
            file=self.stream,
            disable=self.quiet,
            mininterval=interval,
            delay=0.5,
            dynamic_ncols=True,
            leave=False,
        ) as bar:

            def update(done: int, total: int, note: str = "") -> None:
                bar.total = total
                if note:
                    bar.set_postfix_str(note[-40:], refresh=False)
                bar.update(done - bar.n)

            yield update


SILENT = Reporter(quiet=True)
"""For notebooks and tests."""
