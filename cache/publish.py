"""The last step of every entry: a finished file gets its name, and its provenance lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cache.atomic import create_file, make_folder, sealed, write_errors, write_file
from cache.keys import canonical_json
from cache.system import place_if_absent, sync_folder


class Published(NamedTuple):
    """What became of a finished file."""

    placed: bool
    """False where somebody was faster."""
    proved: str | None
    """Index digest of what lies there now, where it is the very file that was proved, not a copy of it."""


def publish(root: Path, built: Path, target: Path, provenance: Mapping[str, Any], proved: str) -> Published:
    """Move a file whose every byte was proved to the name of an entry that nobody has taken.

    Provenance comes first, where there is none, so that a published entry never lacks one; whoever wins a
    race for the name then puts its own in place of what the other left.

    Parameters
    ----------
    root : Path
        The store's.
    built : Path
        The file, on the store's file system; it is gone afterwards.
    target : Path
        Where the entry goes.
    provenance : mapping
        Of these bytes.
    proved : str
        Index digest of the bytes that were proved.

    Raises
    ------
    CacheWriteError
        The disk refused.
    """
    make_folder(target.parent, root)
    side, text = target.with_suffix(".json"), canonical_json(dict(provenance))
    created = create_file(side, text, root)
    with write_errors(target, "publishing"):
        finished = sealed(built, root)
        placed = place_if_absent(finished, target)
        finished.unlink(missing_ok=True)
        sync_folder(target.parent)
    if placed and not created:
        write_file(side, text, root)
    return Published(placed, proved if placed and finished == built else None)
