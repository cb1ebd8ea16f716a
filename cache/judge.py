"""Whether what a remote holds can be pulled: what its manifest names is there, whole, and as it is told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from cache.admit import check_file, incoming_folder
from cache.atomic import forget, temporary_name
from cache.errors import KeyMissingError
from cache.hashing import BytesDone
from cache.manifest import Manifest, contradicting, contradiction
from cache.remote import Remote
from cache.store import Store

State = Literal["sound", "absent", "damaged"]
Progress = BytesDone | None


def state_of_theirs(
    store: Store, remote: Remote, there: Manifest, mine: Manifest, verify: bool, progress: Progress
) -> State:
    """Whether what a remote's manifest names can be pulled, as far as one can tell from here."""
    state = state_of(remote, there, verify, progress)
    if state != "sound":
        return state
    same = there.sha256 == mine.sha256 or there.content_digest == mine.content_digest
    if same and contradicting(replace(there, sha256=mine.sha256, nbytes=mine.nbytes), mine):
        return "damaged"  # it tells of these values what is not so
    if verify and there.sha256 != mine.sha256:
        return "sound" if _can_be_pulled(store, remote, there, progress) else "damaged"
    return "sound"


def state_of(remote: Remote, manifest: Manifest, verify: bool, progress: Progress) -> State:
    """Whether the bytes that a manifest names are there: as many, and the same where they are read again."""
    nbytes = remote.size(manifest.data_name)
    if nbytes is None:
        return "absent"
    if nbytes != manifest.nbytes:
        return "damaged"
    if verify or remote.mounted:
        found = remote.digest(manifest.data_name, nbytes, progress)
        return "sound" if found == manifest.sha256 else "damaged"
    return "sound"


def _can_be_pulled(store: Store, remote: Remote, manifest: Manifest, progress: Progress) -> bool:
    """Fetch somebody else's file and see whether it is what its manifest says; nothing of it stays."""
    waiting = temporary_name(incoming_folder(store) / manifest.key)
    try:
        remote.download(manifest.data_name, waiting, manifest.nbytes, progress)
        check_file(waiting, partial(contradiction, manifest))
    except KeyMissingError:  # damaged is a kind of missing
        return False
    finally:
        forget(waiting)
    return True
