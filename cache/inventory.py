"""The entries of a store, listed: what is known of each is remembered, so that a long list is fast."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.catalogue import Catalogue, EntryInfo, files_below, info_of, recalled, summary_of
from cache.errors import CacheError
from cache.head import read_head
from cache.refusals import unreadable

if TYPE_CHECKING:
    from cache.store import Store

SUFFIX = ".h5"


class Inventory:
    """Lists the entries of a store; see `Store.list`.

    Parameters
    ----------
    store : Store
    catalogue : Catalogue
        What this user remembers of entries.
    """

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    def list(self) -> list[EntryInfo]:
        """Return what is known of each entry; what is wrong with the others is told."""
        known = self._catalogue.recall()
        infos, fresh = [], []
        for digest, path in files_below(self._store.root / "entries", SUFFIX):
            try:
                status = path.lstat()
                summary = recalled(path, status, known)
                if summary is None:
                    status, summary = read_head(path, digest) or self._summary(path, digest)
                    fresh.append((status, summary))
                infos.append(info_of(path, status, summary, partial(self._ingredient_digests, path, digest)))
            except FileNotFoundError:
                continue
            except CacheError as error:
                self._store.notify(str(error))
            except OSError as error:
                self._store.notify(str(unreadable(path, error)))
        self._catalogue.remember(fresh)
        return sorted(
            infos, key=lambda info: (sorted((n, str(v)) for n, v in info.coordinates.items()), info.key)
        )

    def _summary(self, path: Path, digest: str) -> tuple[os.stat_result, dict[str, Any]]:
        """Summarise an entry from its whole index."""
        status, index = self._store.index(path, digest)
        return status, summary_of(index)

    def _ingredient_digests(self, path: Path, digest: str) -> Mapping[str, str]:
        """Read the digests that a list leaves out, and remember them; none of an entry that is refused."""
        try:
            status, summary = self._summary(path, digest)
        except CacheError as error:
            self._store.notify(str(error))
            return {}
        self._catalogue.remember([(status, summary)])
        return summary["ingredient_digests"]  # type: ignore[no-any-return]
