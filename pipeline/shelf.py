"""What lies in the cache while one plan is made: listed once, and only where somebody asks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

from cache import CacheKey, Entry, EntryInfo, Store
from cache.inventory import SUFFIX
from cache.maintain import Twins
from cache.sweep import in_quarantine
from pipeline.wanted import Wanted

ANNOTATIONS = "annotations_sha256"
"""The one ingredient of a key that features do not depend on."""


class Shelf:
    """A store's entries, for many questions in a row.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @functools.cached_property
    def _infos(self) -> Sequence[EntryInfo]:
        return self.store.list()

    @functools.cached_property
    def _by_spot(self) -> Mapping[tuple[object, ...], list[EntryInfo]]:
        found: dict[tuple[object, ...], list[EntryInfo]] = {}
        for info in self._infos:
            found.setdefault(_spot(info.coordinates), []).append(info)
        return found

    @functools.cached_property
    def _twins(self) -> Twins:
        return Twins(self._infos, except_for=ANNOTATIONS)

    def holds(self, key: CacheKey | str) -> bool:
        """Whether an entry with a sound index lies under the key."""
        return key in self.store

    def was_damaged(self, key: str) -> bool:
        """Whether a file of this key was set aside: it was here, and could not be trusted."""
        return bool(in_quarantine(self.store, f"{key}{SUFFIX}"))

    def find(self, wanted: Wanted) -> list[EntryInfo]:
        """Return the entries with these coordinates."""
        near = self._by_spot.get(_spot(wanted.facts), ())
        return [info for info in near if wanted.met_by(info.coordinates)]

    def beginning(self, fingerprint: str) -> list[EntryInfo]:
        """Return the entries whose key begins so; a whole key is looked up without listing the others."""
        if len(fingerprint) == 64:
            return [self.store.info(fingerprint)] if self.holds(fingerprint) else []
        return [info for info in self._infos if info.key.startswith(fingerprint)]

    def twins(self, key: CacheKey) -> tuple[str, ...]:
        """Return the keys of entries with the same features and other annotations, the oldest first."""
        found = sorted(self._twins.of(key), key=lambda info: (info.modified, info.key))
        return tuple(info.key for info in found)

    def read(self, keys: Iterable[str]) -> list[Entry]:
        """Return those of the entries that are sound, verified."""
        found = [self.store.sound(key) for key in keys]  # damaged or removed a moment ago: None
        return [entry for entry in found if entry is not None]


def _spot(coordinates: Mapping[str, object]) -> tuple[object, ...]:
    """Return the coordinates that every entry is asked for by."""
    return tuple(coordinates.get(name) for name in ("backbone", "dataset", "split"))
