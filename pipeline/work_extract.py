"""Stage one's job: a backbone over a split, into the cache."""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

from cache import CacheKey, FileDigests, InputChangedError
from pipeline.jobs import ExtractJob
from pipeline.ledger import Ledger
from pipeline.place import Done, Place
from pipeline.provenance import provenance
from pipeline.resolve import open_store
from stages.extract.recipe import coordinates, ingredients
from stages.records import Backbone, Progress


def extract(job: ExtractJob, place: Place, progress: Progress | None) -> Done:
    """Run the forward passes that are not staged yet and publish the entry."""
    from stages.extract import extract_features

    started = time.perf_counter()
    store = open_store(place.root, notify=_tell)
    key = CacheKey.from_ingredients(
        ingredients(
            job.backbone,
            job.split,
            job.image_sha256,
            job.class_names,
            precision=job.precision,
            on_bad_image=job.on_bad_image,
        )
    )
    settings: dict[str, Any] = {
        "device": job.device,
        "batch_size": job.batch_size,
        "num_workers": job.num_workers,
    }
    metadata = {
        "coordinates": coordinates(job.backbone, job.dataset, job.split.name, precision=job.precision),
        "class_names": list(job.class_names),
        "multi_label": job.multi_label,
        "expected_rows": len(job.split),
        "provenance": {**provenance(), **settings},
    }
    with store.writer(key, metadata) as writer:
        if writer.published is not None:
            return Done(f"{len(writer.published.ids)} rows, cached by another process meanwhile")
        resumed = writer.next_row
        batches = extract_features(
            job.backbone,
            job.split,
            precision=job.precision,
            on_bad_image=job.on_bad_image,
            start=resumed,
            progress=progress,
            network=_network(job.backbone),
            **settings,
        )
        for batch in batches if resumed < len(job.split) else ():
            rows = batch.rows.tolist()
            writer.append(
                batch.features,
                job.split.labels[batch.rows],
                [job.split.ids[i] for i in rows],
                stop=batch.stop,
                row_metadata={
                    "group": [job.split.groups[i] or None if job.split.groups else None for i in rows],
                },
                excluded=list(batch.excluded),
            )
        _refuse_changed_images(job, place)
        entry = writer.publish()
    excluded = [f"left out {id_}: {reason}" for id_, reason in entry.metadata["excluded"]]
    seconds = time.perf_counter() - started
    rate = (len(job.split) - resumed) / seconds
    Ledger(place.output).write(
        "extract",
        job.name,
        status="complete",
        spec={"key": entry.key.digest},
        columns={},
        result={
            "key": entry.key.digest,
            "content_digest": entry.content_digest,
            "rows": len(entry.ids),
            "excluded": [list(pair) for pair in entry.metadata["excluded"]],
            "resumed_at": resumed,
            "seconds": seconds,
            "images_per_second": rate,
        },
        provenance=provenance(),
    )
    return Done(f"{len(entry.ids)} rows at {rate:.0f} images/s", tuple(excluded))


def _tell(line: str) -> None:
    """Say who holds the key that this process waits for."""
    sys.stderr.write(f"{line}\n")


@functools.lru_cache(maxsize=1)
def _network(backbone: Backbone) -> Any:
    """Build a network once for the splits that follow each other."""
    from stages.vision.networks import build_network

    return build_network(backbone)


def _refuse_changed_images(job: ExtractJob, place: Place) -> None:
    """Abort where an image changed while its features were computed: nothing false is published."""
    now = FileDigests(place.root / "digests.sqlite").digest_many(job.split.paths)
    for path, before, after in zip(job.split.paths, job.image_sha256, now, strict=True):
        if before != after:
            raise InputChangedError(f"{path}: changed during extraction; run again when it is settled")
