"""Trying again where that may help, and saying in one line what went wrong where it did not."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from cache.errors import RemoteError
from cache.locks import Notify
from cache.system import advice

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
"""Doubled after each attempt."""

_FINAL = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_FINAL_NUMBERS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENOTDIR,
    errno.EISDIR, errno.EFBIG,
}  # fmt: skip
"""Of a mounted file system: the same will happen again, and the URL, the network and credentials are right."""
_REFUSALS = ("credential", "permission", "denied", "forbidden", "signature", "401", "403")
_T = TypeVar("_T")


class Attempts:
    """Does things on a remote that may fail for a moment.

    Parameters
    ----------
    url : str
        The remote, for messages; without a password.
    notify : callable
        Gets one line each time something is tried again.
    """

    def __init__(self, url: str, notify: Notify) -> None:
        self._url = url
        self._notify = notify

    def run(self, doing: str, action: Callable[[], _T]) -> _T:
        """Do something and return what it gives.

        Raises
        ------
        FileNotFoundError
            As the action raised it: what that means the caller knows.
        RemoteError
            All attempts failed, or one failed in a way that will not change.
        """
        pause, what = FIRST_PAUSE_SECONDS, ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except FileNotFoundError:
                raise
            except Exception as error:  # every file system has errors of its own
                if attempt == ATTEMPTS or _is_final(error):
                    raise RemoteError(None, failure(doing, error), self._url) from error
                what, told = failure(doing, error), what
                again = "the same again" if what == told else what
                self._notify(f"{self._url}: {again}; trying again in {pause:g} s")
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")


def failure(doing: str, error: BaseException) -> str:
    """Describe a failure on one line."""
    detail = " ".join(str(error).split())[:200] or "no details"
    what = f"{doing} failed: {type(error).__name__}: {detail}"
    if _number(error) in _FINAL_NUMBERS:
        return f"{what}: {advice(_number(error))}"
    if isinstance(error, PermissionError) and error.filename:  # of a folder, not of a service
        return f"{what}: ask its owner for the right to read and write there"
    return f"{what}: check the URL, the network and your credentials"


def shown(url: str) -> str:
    """Return a URL without the password that it may carry."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that enclose no address
        return re.sub("//[^/]*@", "//***@", url)
    if parts.password is None:
        return url
    user = f"{parts.username}:***@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=user + parts.netloc.rpartition("@")[2]))


def _number(error: BaseException) -> int | None:
    """Return the operating system's number of an error, None where it has none."""
    return error.errno if isinstance(error, OSError) else None


def _is_final(error: BaseException) -> bool:
    """Whether trying again cannot help: credentials, permissions, a full disk."""
    if isinstance(error, _FINAL) or _number(error) in _FINAL_NUMBERS:
        return True
    words = f"{type(error).__name__} {error}".lower()
    return any(word in words for word in _REFUSALS)
