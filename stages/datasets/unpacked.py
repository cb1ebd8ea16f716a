"""Images that come packed, written to files once: a folder that appears whole, or files named by content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
"""Grows when what is written for the same source changes."""


def unpack_once(home: Path, marker: str, write: Callable[[Path], None]) -> None:
    """Fill a folder beside its place and rename it there, so that nobody sees half of it.

    Parameters
    ----------
    home : Path
        Left alone where it holds the file ``marker``.
    marker : str
        A file that ``write`` writes.
    write : callable
        Fills the folder it is given; several processes may do so at once, and one of them wins.
    """
    if (home / marker).is_file():
        return
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        write(staging)
        staging.chmod(0o755)
        try:
            staging.rename(home)
        except OSError:
            if not (home / marker).is_file():  # not another process that was faster
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def keep_image(folder: Path, content: bytes, suffix: str) -> str:
    """Write an image below ``folder`` under the hash of its bytes, unless it is there; return the path below.

    Parameters
    ----------
    folder : Path
        Where image sets are unpacked.
    content : bytes
        The encoded image, as it came.
    suffix : str
        Such as ``.jpg``.
    """
    digest = hashlib.sha256(content).hexdigest()
    place = f"by-content/{digest[:2]}/{digest}{suffix}"
    path = folder / place
    if not path.is_file() or path.stat().st_size != len(content):
        _write(path, content)
    return place


def index_of(folder: Path, kind: str, identity: Any, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``make`` found out about a source, kept in a file under the source's identity.

    Parameters
    ----------
    folder : Path
        Where image sets are unpacked.
    kind : str
        First part of the file's name.
    identity : JSON value
        Changes when the source does.
    make : callable
        Unpacks the source; its result is a JSON value with the key ``rows``, lists that begin with the id and
        the place below ``folder``.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, identity], sort_keys=True).encode()).hexdigest()
    path = folder / f"{kind}-{digest[:32]}.json"
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all((folder / row[1]).is_file() for row in known["rows"]):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged: make it again
    made = dict(make())
    _write(path, json.dumps(made, ensure_ascii=False).encode())
    return made


def _write(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staging = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(staging).chmod(0o644)
        Path(staging).replace(path)
    finally:
        Path(staging).unlink(missing_ok=True)
