"""Where the cache lies, and the feature store in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cache import Store
from cache.locks import silent
from pipeline.errors import StudyError


def cache_root() -> Path:
    """Return where the cache lies: $PENULTIMATE_CACHE, else ~/.cache/penultimate."""
    chosen = os.environ.get("PENULTIMATE_CACHE") or "~/.cache/penultimate"
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise StudyError(f"{chosen}: {error}; write $PENULTIMATE_CACHE as a whole path") from error


def open_store(root: Path | None = None, *, notify: Callable[[str], None] | None = None) -> Store:
    """Open the feature store below the cache's root; it tells of locks and damage through ``notify``."""
    from pipeline.contents import untrue

    return Store((root or cache_root()) / "features", notify=notify or silent, check=untrue)
