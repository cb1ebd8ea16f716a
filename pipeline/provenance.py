"""Where, when and with what a result was made: beside every result, never in a key."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cache.system import host_name, user_name

PACKAGES = ("penultimate", "numpy", "scipy", "scikit-learn", "h5py", "torch", "torchvision", "timm", "pillow")


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of what decides numbers; packages that are not installed are absent."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def provenance(**more: Any) -> dict[str, Any]:
    """Return versions, host, user and time (UTC, to the second), with whatever else is worth keeping."""
    return {
        "versions": dict(versions()),
        "platform": platform.platform(),
        "host": host_name(),
        "user": user_name(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
