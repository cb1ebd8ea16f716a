"""Does an entry hold what its key speaks of? The cache checks bytes; what they mean is known here."""

from __future__ import annotations

from cache import Entry
from cache.annotations import Annotations
from pipeline.feature_tables import plain_table
from stages.extract.recipe import contradiction


def untrue(entry: Entry) -> str | None:
    """Say in what an entry is not what the ingredients of its key say, as far as that shows without images.

    Given to `cache.Store` as ``check``: whatever is wrong is treated as damage, wherever the entry came from.

    Returns
    -------
    str or None
        None where nothing contradicts.
    """
    facts = entry.key.ingredients
    try:
        table = plain_table(entry)
        if "annotations_sha256" in facts:
            return contradiction(facts, table, [id_ for id_, _ in entry.metadata["excluded"]])
        if "annotations" in facts:  # features of one's own
            groups = entry.row_metadata.get("group")
            own = Annotations(table.ids, table.labels, table.class_names, table.multi_label, groups)
            return None if own.digest == facts["annotations"] else "its labels are not those in its key"
    except (KeyError, TypeError, ValueError):
        return "its key has ingredients that no version of this tool writes"
    return None
