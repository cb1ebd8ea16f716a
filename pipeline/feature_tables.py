"""A cached entry as the stages want it; the features stay memory-mapped."""

from __future__ import annotations

from dataclasses import replace

from cache import Entry
from stages.records import FeatureTable


def feature_table(entry: Entry) -> FeatureTable:
    """Return an entry's rows, with the hashes of their images where it was made from images."""
    # Features of one's own (`cache import`) have a recipe of their own, without images.
    digests = dict(entry.key.ingredients.get("samples", ()))
    return replace(
        plain_table(entry), image_sha256=tuple(digests[id_] for id_ in entry.ids) if digests else None
    )


def plain_table(entry: Entry) -> FeatureTable:
    """Return an entry's rows, without a look at what its key speaks of."""
    groups = entry.row_metadata.get("group")
    return FeatureTable(
        features=entry.features,
        labels=entry.labels,
        ids=entry.ids,
        class_names=tuple(entry.metadata["class_names"]),
        groups=tuple(g or "" for g in groups) if groups and any(groups) else None,
        digest=entry.content_digest,
    )
