"""Errors of the stages, one tree.

::

    StageError                       anything a stage refuses to do
    ├── InputError (ValueError)      the input is wrong; nothing was started
    │   ├── DatasetError             a data set cannot be read as described
    │   │   ├── DatasetAbsentError   its files are not on this machine
    │   │   ├── BadImageError        an image file cannot be decoded
    │   │   └── UnreadFileError      an image file cannot be read, or is not the one that was hashed
    │   ├── BackboneError            unknown backbone, or one that cannot do what was asked
    │   │   └── WeightsError         a weights file is missing or does not fit
    │   ├── ProbeError               features and labels that no probe can be fitted to
    │   └── JoinError                results that contradict each other or are not ours
    ├── MissingExtraError (ImportError)   an optional library is not installed
    └── DivergedError (ArithmeticError)   a training loss became NaN or infinite

Every message is one line that says what was found, where, and what to do now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.records import Dataset


class StageError(Exception):
    """Base class of everything a stage refuses to do."""


class InputError(StageError, ValueError):
    """The input is wrong: correct it and run again."""


class DatasetError(InputError):
    """A data set cannot be read as described."""


class DatasetAbsentError(DatasetError):
    """The data set's files are not on this machine; its cached features may be.

    Parameters
    ----------
    message : str
        One line.
    listed : Dataset, optional
        Its rows and labels, where the table that lists them is here.
    mistakes : sequence of str
        What is wrong with that table itself, one line each; it lists nothing then.
    """

    def __init__(self, message: str, listed: Dataset | None = None, mistakes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.listed = listed
        self.mistakes = tuple(mistakes)


class BadImageError(DatasetError):
    """An image file cannot be decoded."""


class UnreadFileError(DatasetError):
    """An image file cannot be read here and now, or is not the one that was hashed.

    Nothing is known to be wrong with the picture, so no policy for bad images leaves it out.
    """


class BackboneError(InputError):
    """The backbone is unknown, or cannot do what was asked of it."""


class WeightsError(BackboneError):
    """A weights file is missing, unreadable, or does not fit the network."""


class ProbeError(InputError):
    """Features and labels that no probe can be fitted to."""


class JoinError(InputError):
    """Results that contradict each other, or are not results of this tool."""


class MissingExtraError(StageError, ImportError):
    """A library of an optional extra is not installed.

    Parameters
    ----------
    library : str
        What could not be imported.
    extra : str
        Which extra of this tool brings it.
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f'{library} is not installed: pip install "penultimate[{extra}]"', name=library)
        self.library = library
        self.extra = extra

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Travel from a worker process whole."""
        return type(self), (self.library, self.extra)


class DivergedError(StageError, ArithmeticError):
    """A training loss became NaN or infinite.

    Attributes
    ----------
    step : int
        The optimiser step at which it happened.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss stopped being finite at step {step}: lower the learning rate")
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Travel from a worker process whole."""
        return type(self), (self.step,)
