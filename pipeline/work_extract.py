"""Stage one's job: a backbone over a split, into the cache."""

from __future__ import annotations

import time

from cache import Entry, InvalidInputError, KeyMissingError, Store
from cache.maintain import relabel
from pipeline.cache_folder import open_store
from pipeline.entry_facts import groups_of, key_of, left_out, metadata_of, record, refuse_other_values, tell
from pipeline.extraction_groups import ExtractionGroup
from pipeline.extraction_pass import extract_group
from pipeline.jobs import ExtractJob
from pipeline.place import Done, Place
from stages.records import Progress


def extract(job: ExtractJob, place: Place, progress: Progress | None) -> Done:
    """Publish the entry: with the features of one that differs in labels alone, else by forward passes."""
    started = time.perf_counter()
    store = open_store(place.root, notify=tell)
    for twin in job.twins:
        try:
            entry = _relabelled(job, store, twin)
        except (KeyMissingError, InvalidInputError):  # gone, damaged, or not what its key promises
            continue
        record(job, place, entry, started, relabelled_from=twin)
        refuse_other_values(job, entry)
        return Done(f"{len(entry.ids)} rows relabelled, features of {twin[:12]}", left_out(entry))
    (outcome,) = extract_group(ExtractionGroup((job,), (job.backbone,)), place, progress)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _relabelled(job: ExtractJob, store: Store, twin: str) -> Entry:
    """Publish the features of another entry with this job's labels, class names and groups."""
    source = store.read(twin)
    readable = set(source.ids)
    rows = [i for i, id_ in enumerate(job.split.ids) if id_ in readable]
    origin = {"key": twin, "provenance": source.metadata["provenance"]}
    return relabel(
        store,
        twin,
        key_of(job),
        job.split.labels[rows],
        metadata_of(job, relabelled_from=origin),
        {"group": groups_of(job, rows)},
        inputs=job.split.ids,
    )
