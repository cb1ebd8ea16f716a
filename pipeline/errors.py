"""Errors of the pipeline and the exit status that each one ends in.

::

    PipelineError
    ├── StudyError (ValueError)    exit 2: the input is wrong, nothing was started
    └── SurroundingsError (OSError) exit 3: disk, permissions, remote; a rerun continues

Ctrl-C and SIGTERM are a KeyboardInterrupt and end in exit 4: everything done so far is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_INPUT = 2
EXIT_SURROUNDINGS = 3
EXIT_INTERRUPTED = 4


class PipelineError(Exception):
    """Base class of everything the pipeline refuses to do."""


class StudyError(PipelineError, ValueError):
    """The study, or something it names, is wrong.

    Attributes
    ----------
    mistakes : tuple of str
        One line each.
    """

    def __init__(self, mistakes: Iterable[str] | str) -> None:
        self.mistakes = (mistakes,) if isinstance(mistakes, str) else tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class SurroundingsError(PipelineError, OSError):
    """The machine said no: disk full, no permission, an unwritable place."""
