"""Keeping a store: new labels without a forward pass, and making room without harming a reader."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cache.atomic import make_folder, write_errors
from cache.catalogue import EntryInfo
from cache.entry import Entry
from cache.errors import InvalidInputError, KeyMissingError
from cache.keys import CacheKey, sha256_of
from cache.store import Store
from cache.system import place_if_absent
from cache.trash import Thrown, thrown

_ROWS_AT_A_TIME = 4096


class Twins:
    """Entries by all ingredients of their keys save one.

    Parameters
    ----------
    infos : iterable of EntryInfo
        What there is, listed once for any number of questions.
    except_for : str
        The ingredient in which twins may differ: with that of the annotations, twins have the same features.
    """

    def __init__(self, infos: Iterable[EntryInfo], *, except_for: str) -> None:
        self._except_for = except_for
        self._infos: dict[frozenset[tuple[str, str]], list[EntryInfo]] = {}
        for info in infos:
            self._infos.setdefault(self._rest(info.ingredient_digests), []).append(info)

    def of(self, key: CacheKey) -> list[EntryInfo]:
        """Return the entries whose key has the same ingredients, save that one."""
        digests = {name: sha256_of(value) for name, value in key.ingredients.items()}
        return list(self._infos.get(self._rest(digests), ()))

    def _rest(self, digests: Mapping[str, str]) -> frozenset[tuple[str, str]]:
        """Return what twins have in common."""
        return frozenset(item for item in digests.items() if item[0] != self._except_for)


def twins(store: Store, key: CacheKey, *, except_for: str) -> list[EntryInfo]:
    """Return the entries whose key has the same ingredients, save one.

    With ``except_for="annotations"`` these are the entries whose features a relabelled data set can use.
    """
    return Twins(store.list(), except_for=except_for).of(key)


def relabel(
    store: Store,
    old: CacheKey | str,
    new: CacheKey,
    labels: NDArray[Any],
    metadata: Mapping[str, Any],
    row_metadata: Mapping[str, Sequence[str | None]] | None = None,
    *,
    inputs: Sequence[str] | None = None,
) -> Entry:
    """Publish the features of an entry under a new key with other labels; no network is run.

    Parameters
    ----------
    store : Store
        Where the old entry lies and the new one goes.
    old : CacheKey or str
        The entry whose features are used.
    new : CacheKey
        With the new annotations among its ingredients.
    labels : ndarray of shape (n,), int64, or (n, K), int8
        One for each row of the old entry, in its order.
    metadata : mapping
        As for `Store.writer`, without ``expected_rows``: the excluded rows stay as they were.
    row_metadata : mapping, optional
        All columns of the new entry; default: those of the old one.
    inputs : sequence of str, optional
        Ids of all input rows in their order, the excluded ones among them, so that this and an extraction
        of the same key can go on where the other was interrupted; default: the excluded ones come last.

    Raises
    ------
    InvalidInputError
        The labels or the input rows do not fit.
    KeyMissingError
        The old entry is missing or damaged.
    """
    source = store.read(old)
    left_out = dict(source.metadata["excluded"])
    n = len(source.features)
    if len(labels) != n:
        raise InvalidInputError(f"{len(labels)} labels for the {n} rows of entry {source.key.digest[:12]}...")
    order = (*source.ids, *left_out) if inputs is None else tuple(inputs)
    if len(order) != n + len(left_out) or tuple(i for i in order if i not in left_out) != source.ids:
        raise InvalidInputError(f"the input rows named are not those of entry {source.key.digest[:12]}...")
    columns = source.row_metadata if row_metadata is None else row_metadata
    with store.writer(new, {**metadata, "expected_rows": len(order)}) as writer:
        stop = sum(name not in left_out for name in order[: writer.next_row])
        for first in range(writer.next_row, len(order), _ROWS_AT_A_TIME):
            names = order[first : first + _ROWS_AT_A_TIME]
            excluded = [(name, left_out[name]) for name in names if name in left_out]
            start, stop = stop, stop + len(names) - len(excluded)
            writer.append(
                source.features[start:stop],
                labels[start:stop],
                source.ids[start:stop],
                stop=first + len(names),
                row_metadata={name: column[start:stop] for name, column in columns.items()},
                excluded=excluded,
            )
        return writer.publish()


def to_collect(
    infos: Iterable[EntryInfo],
    *,
    older_than: float | None = None,
    largest_total: int | None = None,
    keep: Collection[str] = (),
    now: float | None = None,
) -> list[EntryInfo]:
    """Choose entries to remove; removes nothing.

    Parameters
    ----------
    infos : iterable of EntryInfo
        What there is.
    older_than : float, optional
        Choose entries last used over so many seconds ago.
    largest_total : int, optional
        Choose the longest unused ones until the others have at most so many bytes together.
    keep : collection of str
        Keys that studies refer to; never chosen.
    now : float, optional
        Seconds since the epoch; default: the clock's.

    Returns
    -------
    list of EntryInfo
        The longest unused first. Without ``older_than`` and ``largest_total``: all but ``keep``.
    """
    moment = time.time() if now is None else now
    everything = sorted(infos, key=lambda info: (info.used, info.key))
    free = [info for info in everything if info.key not in set(keep)]
    if older_than is None and largest_total is None:
        return free
    chosen = [info for info in free if older_than is not None and moment - info.used > older_than]
    if largest_total is not None:
        taken = {info.key for info in chosen}
        total = sum(info.nbytes for info in everything if info.key not in taken)
        for info in (info for info in free if info.key not in taken):
            if total <= largest_total:
                break
            chosen.append(info)
            total -= info.nbytes
    return chosen


def collect(store: Store, infos: Iterable[EntryInfo]) -> list[EntryInfo]:
    """Move entries to the trash and return those that were moved.

    A reader keeps the values that it has mapped, and one that comes later finds the key missing. An
    entry that vanished meanwhile is passed over; so is one that was used since it was chosen.
    """
    moved = []
    for info in infos:
        with contextlib.suppress(KeyMissingError, FileNotFoundError):
            status = info.path.lstat()
            if max(status.st_atime, status.st_mtime) > info.used:
                store.notify(f"key {info.key[:12]}...: was used meanwhile, stays")
                continue
            store.remove(info.key)
            moved.append(info)
    return moved


def restore(store: Store, key: CacheKey | str) -> Entry:
    """Take back the newest of a key in the trash, verified; a sound entry that is there stays, and so does the trash.

    Raises
    ------
    KeyMissingError
        It is not in the trash.
    CacheWriteError
        No permission.
    """
    target = store.path_of(key)
    missing = KeyMissingError(
        f"{store.root / 'trash'}: key {target.stem[:12]}... is not in the trash: extract it, or pull it"
    )
    newest = next((one for one in thrown(store.root, target.stem) if one.is_whole), None)
    if newest is None:
        raise missing
    there = store.sound(key, to_write=True)
    if there is not None:
        _tell_of_both(store, target.stem)
        return there
    make_folder(target.parent, store.root)
    with write_errors(target, "taking back from the trash"):
        try:
            if place_if_absent(newest.path, target):
                _take_side_back(newest, target.with_suffix(".json"))
            else:
                _tell_of_both(store, target.stem)
        except FileNotFoundError:
            raise missing from None
    return store.read(key)


def _take_side_back(newest: Thrown, target: Path) -> None:
    """Put the provenance beside its entry again, and clear away what is left of the removal."""
    with contextlib.suppress(FileNotFoundError):
        if not place_if_absent(newest.side, target):
            newest.side.replace(target)  # it is that of these bytes
    if newest.folder is not None:
        with contextlib.suppress(OSError):
            newest.folder.rmdir()


def _tell_of_both(store: Store, digest: str) -> None:
    """Say that an entry is in its place already."""
    store.notify(f"key {digest[:12]}...: is there already, what lies in the trash stays in it")
