"""Stage one's job: a backbone over a split, into the cache."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

from cache import CacheKey, Entry, FileDigests, InputChangedError, InvalidInputError, KeyMissingError, Store
from cache.maintain import relabel
from pipeline.errors import StudyError
from pipeline.jobs import ExtractJob
from pipeline.ledger import Ledger
from pipeline.place import Done, Place
from pipeline.provenance import provenance
from pipeline.resolve import open_store
from stages.extract.recipe import coordinates, ingredients
from stages.records import Backbone, Progress


def extract(job: ExtractJob, place: Place, progress: Progress | None) -> Done:
    """Publish the entry: with the features of one that differs in labels alone, else by forward passes."""
    started = time.perf_counter()
    store = open_store(place.root, notify=_tell)
    for twin in job.twins:
        try:
            entry = _relabelled(job, store, twin)
        except (KeyMissingError, InvalidInputError):  # gone, damaged, or not what its key promises
            continue
        _record(job, place, entry, started, relabelled_from=twin)
        _refuse_other_values(job, entry)
        return Done(f"{len(entry.ids)} rows relabelled, features of {twin[:12]}", _left_out(entry))
    return _extracted(job, place, store, started, progress)


def _relabelled(job: ExtractJob, store: Store, twin: str) -> Entry:
    """Publish the features of another entry with this job's labels, class names and groups."""
    source = store.read(twin)
    readable = set(source.ids)
    rows = [i for i, id_ in enumerate(job.split.ids) if id_ in readable]
    origin = {"key": twin, "provenance": source.metadata["provenance"]}
    return relabel(
        store,
        twin,
        _key(job),
        job.split.labels[rows],
        _metadata(job, relabelled_from=origin),
        {"group": _groups(job, rows)},
        inputs=job.split.ids,
    )


def _extracted(
    job: ExtractJob, place: Place, store: Store, started: float, progress: Progress | None
) -> Done:
    """Run the forward passes that are not staged yet and publish the entry."""
    from stages.extract import extract_features
    from stages.vision.devices import choose_device

    settings: dict[str, Any] = {"batch_size": job.batch_size, "num_workers": job.num_workers}
    device = str(choose_device(job.device))
    metadata = {**_metadata(job, **settings, device=device), "expected_rows": len(job.split)}
    with store.writer(_key(job), metadata) as writer:
        if writer.published is not None:
            _refuse_other_values(job, writer.published)
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
            device=device,
            **settings,
        )
        for batch in batches if resumed < len(job.split) else ():
            rows = batch.rows.tolist()
            writer.append(
                batch.features,
                job.split.labels[batch.rows],
                [job.split.ids[i] for i in rows],
                stop=batch.stop,
                row_metadata={"group": _groups(job, rows)},
                excluded=_reasons(job, batch.excluded),
            )
        _refuse_changed_images(job, place)
        entry = writer.publish()
    rate = (len(job.split) - resumed) / (time.perf_counter() - started)
    _record(job, place, entry, started, resumed_at=resumed, images_per_second=rate)
    _refuse_other_values(job, entry)
    return Done(f"{len(entry.ids)} rows at {rate:.0f} images/s", _left_out(entry))


def _refuse_other_values(job: ExtractJob, entry: Entry) -> None:
    """Fail where features came out other than the study pins them: another device or library computed those."""
    if job.content_digest not in (None, entry.content_digest):
        key = entry.key.digest[:12]
        raise StudyError(
            f"{job.name}: pinned with the values {job.content_digest[:12]}, this machine computed "
            f"{entry.content_digest[:12]}: `penultimate cache remove {key}` and pull the pinned ones, or pin these "
            "with `penultimate cache pin`"
        )


def _key(job: ExtractJob) -> CacheKey:
    """Return the key with its ingredients; the job holds the digest alone, or none before the weights came."""
    return CacheKey.from_ingredients(
        ingredients(
            job.backbone,
            job.split,
            job.image_sha256,
            job.class_names,
            precision=job.precision,
            on_bad_image=job.on_bad_image,
        )
    )


def _metadata(job: ExtractJob, **more: Any) -> dict[str, Any]:
    """Return what a writer wants to know, but for the number of rows; ``more`` goes into the provenance."""
    return {
        "coordinates": coordinates(job.backbone, job.dataset, job.split.name, precision=job.precision),
        "class_names": list(job.class_names),
        "multi_label": job.multi_label,
        "provenance": provenance(**more),
    }


def _groups(job: ExtractJob, rows: Sequence[int]) -> list[str | None]:
    """Return the group of each row, None where it has none."""
    groups = job.split.groups
    return [groups[i] or None if groups else None for i in rows]


def _reasons(job: ExtractJob, excluded: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Take the folders of this machine out of what is said of unreadable images: entries are for everybody."""
    path_of = dict(zip(job.split.ids, job.split.paths, strict=True)) if excluded else {}
    return [(id_, reason.removeprefix(f"{path_of[id_]}: ")) for id_, reason in excluded]


def _left_out(entry: Entry) -> tuple[str, ...]:
    """Say which images could not be read."""
    return tuple(f"left out {id_}: {reason}" for id_, reason in entry.metadata["excluded"])


def _record(job: ExtractJob, place: Place, entry: Entry, started: float, **more: Any) -> None:
    """Write down what was published, and how."""
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
            "seconds": time.perf_counter() - started,
            **more,
        },
        provenance=provenance(),
    )


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
