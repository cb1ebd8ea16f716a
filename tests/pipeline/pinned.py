"""What tests of pins share: other values under a key, and what pins an entry."""

from __future__ import annotations

import numpy as np

from cache import CacheKey, Entry, EntryInfo, Store
from pipeline.cache_folder import open_store
from pipeline.tables import PinTable

NET = "test_resnet.r160_in1k"
PROBE = f"probe/{NET}/colours"
STAGES = ("probe", "join")


def republish(entry: Entry, *, store: Store, change: float = 1e-3) -> Entry:
    """The same key with other values, as another machine may compute them."""
    facts = {
        name: entry.metadata[name] for name in ("coordinates", "class_names", "multi_label", "expected_rows")
    }
    with store.writer(
        CacheKey.from_ingredients(entry.key.ingredients), {**facts, "provenance": {}}
    ) as writer:
        writer.append(
            np.array(entry.features) + np.float32(change),
            np.array(entry.labels),
            list(entry.ids),
            stop=len(entry.ids),
            row_metadata=entry.row_metadata,
        )
        return writer.publish()


def swap_values(split: str = "test") -> Entry:
    """Put other values under the key of a cached entry."""
    store = open_store()
    entry = store.read(store.find_one(split=split).key)
    store.remove(entry.key)
    return republish(entry, store=store)


def pin_of(info: EntryInfo, **changes: object) -> PinTable:
    facts = {"backbone": NET, "dataset": "colours", "split": info.coordinates["split"]}
    return PinTable.model_validate({**facts, "fingerprint": info.key, **changes})
