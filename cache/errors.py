"""Errors of the cache, one tree.

::

    CacheError                              anything the cache refuses to do
    ├── KeyMissingError (KeyError)          no entry under this key, or none with these coordinates
    │   └── DamagedEntryError               there was a file, it cannot be trusted, it counts as missing
    ├── AmbiguousKeyError (LookupError)     several entries match, one has to be named
    ├── NewerFormatError                    the entry was written by a later version of the tool
    ├── InvalidInputError (ValueError)      what was handed to the cache cannot be stored or looked up
    │   └── InputChangedError               a file changed while it was being read
    ├── CacheReadError (OSError)            no permission, device error: nothing is known about the entry
    ├── CacheWriteError (OSError)           disk full, no permission, device error: nothing was published
    ├── LockTimeoutError (TimeoutError)     somebody else holds the key for longer than one may wait
    └── RemoteError (OSError)               a remote place cannot be reached, read or written

Every message is one line that says what was found, where, and what to do now.
"""

from __future__ import annotations

import re
from pathlib import Path

# Control characters, line and paragraph separators, characters that reorder a line, lone surrogates.
NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: object) -> str:
    r"""Return a text with everything escaped that would break its line or a terminal.

    Examples
    --------
    >>> one_line("a\nb.h5")
    'a\\nb.h5'
    """
    return NO_TEXT.sub(lambda found: ascii(found[0])[1:-1], str(text))


class CacheError(Exception):
    """Base class of everything the cache refuses to do."""

    def __str__(self) -> str:
        return one_line(Exception.__str__(self))


class KeyMissingError(CacheError, KeyError):
    """No entry lies under this key, or none has these coordinates."""


class DamagedEntryError(KeyMissingError):
    """A file is no entry that can be trusted; it counts as missing.

    Attributes
    ----------
    path : Path
        The file that was refused.
    reason : str
        The defect, in a few words.
    moved_to : Path or None
        Where the file was set aside, None where it stayed.
    advice : str
        What to do now.
    """

    def __init__(
        self,
        path: Path | str,
        reason: str,
        moved_to: Path | None = None,
        advice: str = "extract or pull it again",
    ) -> None:
        after = f"set aside as {moved_to}" if moved_to else "not used"
        super().__init__(f"{path}: {reason}; {after}, treated as missing: {advice}")
        self._place = path  # a URL loses a slash as a Path
        self.path = Path(path)
        self.reason = reason
        self.moved_to = moved_to
        self.advice = advice

    def __reduce__(self) -> tuple[type, tuple[Path | str, str, Path | None, str]]:
        """Travel from a worker process whole: an exception is otherwise rebuilt from its message alone."""
        return type(self), (self._place, self.reason, self.moved_to, self.advice)


class AmbiguousKeyError(CacheError, LookupError):
    """Several entries match what was asked for."""


class NewerFormatError(CacheError):
    """The entry is sound, but a later version of the tool wrote it."""


class InvalidInputError(CacheError, ValueError):
    """What was handed to the cache cannot be stored or looked up."""


class InputChangedError(InvalidInputError):
    """A file changed while it was being read: the work based on it is void."""


class _SystemError(CacheError, OSError):
    """Says what the operating system said, with the path first."""

    def __str__(self) -> str:
        return one_line(f"{self.filename}: {self.strerror}" if self.filename else self.strerror)


class CacheReadError(_SystemError):
    """A file is there and the system does not let it be read: it is neither sound nor damaged.

    Made like OSError: (errno, what happened, path).
    """


class CacheWriteError(_SystemError):
    """The disk, a permission or a device stood in the way; nothing was published.

    Made like OSError: (errno, what happened, path).
    """


class LockTimeoutError(CacheError, TimeoutError):
    """Somebody else holds the key for longer than one may wait."""


class RemoteError(_SystemError):
    """A remote place cannot be reached, read or written.

    Made like OSError: (errno, what happened, URL).
    """
