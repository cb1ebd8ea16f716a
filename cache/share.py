"""Push and pull: data first, manifest last, verified before use, resumed where it was interrupted.

What a remote holds damaged counts as missing there as well: a push puts the right bytes in its place. On a
mounted folder that is found out by hashing what is there, elsewhere where somebody asks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from cache.admit import Admission, Refusal, admit, incoming_folder, waiting_file
from cache.atomic import forget, write_errors
from cache.errors import DamagedEntryError, InvalidInputError, KeyMissingError
from cache.judge import State, state_of, state_of_theirs
from cache.keys import CacheKey, canonical_json, digest_of_key
from cache.listing import find_one_remote, find_remote, list_remote, read_manifest, write_listing
from cache.locks import KeyLock
from cache.manifest import Manifest, contradicting, contradiction, describe, to_plain
from cache.remote import SMALL_BYTES, Remote
from cache.store import Store

__all__ = [
    "Manifest",
    "ShareProgress",
    "Transfer",
    "find_one_remote",
    "find_remote",
    "list_remote",
    "pull",
    "push",
    "read_manifest",
]

ShareProgress = Callable[[str, int, int], None]
"""Called with (key, bytes done, bytes in all)."""
_Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Transfer:
    """What became of one key."""

    key: str
    status: Literal[
        "sent", "mended", "received", "present", "different", "would send", "would mend", "would receive"
    ]
    """``different``: the other side has the key with other values; both stay as they are. ``mended``: the
    remote held it damaged, and holds it right now."""
    nbytes: int
    """Size of the entry's file."""
    deviation: float = 0.0
    """Of a pulled entry that is ``different``: largest difference relative to the largest magnitude."""


def push(
    store: Store,
    remote: Remote,
    keys: Iterable[CacheKey | str],
    *,
    dry_run: bool = False,
    verify: bool = False,
    progress: ShareProgress | None = None,
) -> list[Transfer]:
    """Copy entries to a remote, each verified before it leaves.

    Parameters
    ----------
    store : Store
        Where they lie.
    remote : Remote
        Where they go.
    keys : iterable of CacheKey or str
        Which ones.
    dry_run : bool
        Say what would be done, and do nothing.
    verify : bool
        Read again what the remote holds, and replace what is damaged. A mounted folder is always read again.
    progress : callable, optional
        Gets (key, bytes done, bytes in all).

    Raises
    ------
    InvalidInputError
        Nothing can be written to this kind of remote.
    KeyMissingError, DamagedEntryError
        As `Store.read`, for the first key that has no sound entry.
    RemoteError
        The remote refused or cannot be reached; what was sent stays and is not sent again.
    """
    if remote.readable_only:
        raise InvalidInputError(
            f"{remote.url}: http is for pulling only: push to a folder, s3, gs, sftp or hf"
        )
    done = [
        _push_one(store, remote, digest, dry_run, verify, _for_key(digest, progress))
        for digest in map(digest_of_key, keys)
    ]
    if any(transfer.status == "sent" for transfer in done):
        write_listing(remote)
    return done


def pull(
    store: Store,
    remote: Remote,
    keys: Iterable[CacheKey | str],
    *,
    dry_run: bool = False,
    progress: ShareProgress | None = None,
) -> list[Transfer]:
    """Copy entries from a remote; none is seen here before every byte of it was verified.

    Raises
    ------
    KeyMissingError
        The remote has no such entry.
    DamagedEntryError
        What came is not what the manifest says; it was set aside, one file for each key.
    RemoteError
        The remote cannot be reached; what came stays, and the next call goes on from there.
    """
    return [
        _pull_one(store, remote, digest_of_key(key), dry_run, _for_key(digest_of_key(key), progress))
        for key in keys
    ]


def _push_one(
    store: Store, remote: Remote, key: str, dry_run: bool, verify: bool, progress: _Progress
) -> Transfer:
    """Send one entry: its bytes, then its manifest."""
    entry = store.read(key)
    mine = describe(entry)
    text = canonical_json(to_plain(mine))
    if len(text) > SMALL_BYTES:
        raise InvalidInputError(
            f"{entry.path.with_suffix('.json')}: with it the manifest has {len(text)} bytes, and nobody reads "
            f"one of more than {SMALL_BYTES}: shorten it, then push again"
        )
    there, unsound = _there(remote, key)
    state: State = "absent"
    if there is not None:
        state = state_of_theirs(store, remote, there, mine, verify, progress)
        if state == "sound":
            return _kept(remote, there, mine)
    held = state_of(remote, mine, verify, progress)
    damaged = unsound or "damaged" in (state, held)
    if dry_run:
        return Transfer(key, "would mend" if damaged else "would send", mine.nbytes)
    remote.upload(entry.path, mine.data_name, progress, replace=held == "damaged")
    outdated = there is None or contradicting(there, mine)
    if outdated and not remote.create(mine.name, text, replace=unsound or there is not None):
        winner, _ = _there(remote, key)
        if winner is not None and winner.content_digest != mine.content_digest:
            return _kept(remote, winner, mine)
    return Transfer(key, "mended" if damaged else "sent", mine.nbytes)


def _kept(remote: Remote, there: Manifest, mine: Manifest) -> Transfer:
    """Say that the remote has the key, and whether with these values."""
    if there.content_digest == mine.content_digest:
        return Transfer(mine.key, "present", mine.nbytes)
    remote.notify(
        f"{remote.url}: key {mine.key[:12]}... is there with other values, the first ones stay: "
        "`penultimate cache pull` says by how much they differ from yours"
    )
    return Transfer(mine.key, "different", mine.nbytes)


def _pull_one(store: Store, remote: Remote, key: str, dry_run: bool, progress: _Progress) -> Transfer:
    """Fetch one entry into the incoming folder, verify it, move it to its place."""
    manifest = read_manifest(remote, key)
    mine = store.sound(key, to_write=True)
    if mine is not None and mine.content_digest == manifest.content_digest:
        return Transfer(key, "present", manifest.nbytes)
    if dry_run:
        return Transfer(key, "would receive", manifest.nbytes)
    refusal = _refusal(store, remote, manifest)
    nbytes = remote.size(manifest.data_name)
    if nbytes not in {None, manifest.nbytes}:
        reason = f"has {nbytes} bytes, its manifest says {manifest.nbytes}"
        raise DamagedEntryError(refusal.place or key, reason, None, refusal.advice)
    with KeyLock(store.root / "locks", key).held(store.notify):
        admission = _fetch(store, remote, manifest, refusal, progress)
        for left in incoming_folder(store).glob(f"{key}.*.part"):
            forget(left)  # of a file that the remote has since replaced
    status: Literal["received", "present", "different"] = (
        "received" if admission.status == "added" else admission.status
    )
    return Transfer(key, status, manifest.nbytes, admission.deviation)


def _fetch(
    store: Store, remote: Remote, manifest: Manifest, refusal: Refusal, progress: _Progress
) -> Admission:
    """Download and admit a file; what a former attempt left is used, unless it turns out damaged."""
    name = f"{manifest.key}.{manifest.sha256}.part"
    waiting = waiting_file(store, name)
    resumed = remote.download(manifest.data_name, waiting, manifest.nbytes, progress) > 0
    try:
        return _admit(store, waiting, manifest, replace(refusal, aside=None) if resumed else refusal)
    except DamagedEntryError as error:
        if not resumed:
            raise
        store.notify(
            f"key {manifest.key[:12]}...: {error.reason}; what an interrupted pull had left may be "
            "damaged: fetching all of it again"
        )
    with write_errors(waiting, "removing what an interrupted pull had left"):
        waiting.unlink(missing_ok=True)
    remote.download(manifest.data_name, waiting_file(store, name), manifest.nbytes, progress)
    return _admit(store, waiting, manifest, refusal)


def _admit(store: Store, waiting: Path, manifest: Manifest, refusal: Refusal) -> Admission:
    """Let in what came, if it is what its manifest says."""
    check = partial(contradiction, manifest)
    return admit(store, waiting, check=check, provenance=manifest.provenance, refusal=refusal)


def _refusal(store: Store, remote: Remote, manifest: Manifest) -> Refusal:
    """Say what is to be done where a remote's file is refused; one such file is kept of each key."""
    command = f"penultimate cache push {shlex.quote(remote.url)} --key {manifest.key[:12]} --verify"
    return Refusal(
        place=f"{remote.url.rstrip('/')}/{manifest.data_name}",
        aside=store.root / "quarantine" / f"{manifest.key}.pulled.h5",
        advice=f"whoever has a sound copy can mend it with `{command}`, then pull again",
    )


def _there(remote: Remote, key: str) -> tuple[Manifest | None, bool]:
    """Return the manifest that the remote has under a key, and whether there is one that is none."""
    try:
        return read_manifest(remote, key), False
    except KeyMissingError:
        return None, False
    except InvalidInputError as error:
        remote.notify(str(error))
        return None, True


def _for_key(key: str, progress: ShareProgress | None) -> _Progress:
    """Return a progress callback of one key."""
    return None if progress is None else lambda done, total: progress(key, done, total)
