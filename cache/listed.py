"""A file as a file system's listing tells of it, whatever words its library has for that."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_STAMPS = ("ETag", "etag", "md5Hash", "blob_id", "oid", "mtime", "LastModified", "updated")


@dataclass(frozen=True)
class Listed:
    """A file as a listing tells of it."""

    name: str
    """Without its folder."""
    size: int | None
    stamp: str
    """Changes when the file does; empty where the file system tells nothing that would."""
    regular: bool = True
    """False for a folder, a FIFO, a device, whatever its name."""


def listed(info: Mapping[str, Any]) -> Listed:
    """Return what fsspec tells of a file."""
    return Listed(
        name=str(info["name"]).rstrip("/").rsplit("/", 1)[-1],
        size=info.get("size"),
        stamp=_stamp(info),
        regular=info["type"] == "file" or bool(info.get("islink")),
    )


def _stamp(info: Mapping[str, Any]) -> str:
    """Return what a listing tells of a file's state."""
    found = next((f"{name} {info[name]}" for name in _STAMPS if info.get(name)), "")
    return f"{info.get('size')} {found}" if found else ""


def seconds_of(info: Mapping[str, Any]) -> float:
    """Return when a file was changed, seconds since the epoch; now, where that is not told."""
    changed = info.get("mtime")
    if isinstance(changed, datetime):
        return changed.timestamp()
    return float(changed) if isinstance(changed, int | float) else time.time()
