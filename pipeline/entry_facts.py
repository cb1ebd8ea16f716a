"""What stage one says of an entry: its key, its metadata, its record, and what speaks against publishing it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from cache import CacheKey, Entry, FileDigests, InputChangedError
from pipeline.errors import StudyError
from pipeline.jobs import ExtractJob
from pipeline.ledger import Ledger
from pipeline.place import Place
from pipeline.provenance import provenance
from stages.extract.recipe import coordinates, ingredients


def key_of(job: ExtractJob) -> CacheKey:
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


def metadata_of(job: ExtractJob, **more: Any) -> dict[str, Any]:
    """Return what a writer wants to know, but for the number of rows; ``more`` goes into the provenance."""
    return {
        "coordinates": coordinates(job.backbone, job.dataset, job.split.name, precision=job.precision),
        "class_names": list(job.class_names),
        "multi_label": job.multi_label,
        "provenance": provenance(**more),
    }


def groups_of(job: ExtractJob, rows: Sequence[int]) -> list[str | None]:
    """Return the group of each row, None where it has none."""
    groups = job.split.groups
    return [groups[i] or None if groups else None for i in rows]


def reasons(job: ExtractJob, excluded: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Take the folders of this machine out of what is said of unreadable images: entries are for everybody."""
    path_of = dict(zip(job.split.ids, job.split.paths, strict=True)) if excluded else {}
    return [(id_, reason.removeprefix(f"{path_of[id_]}: ")) for id_, reason in excluded]


def left_out(entry: Entry) -> tuple[str, ...]:
    """Say which images could not be read."""
    return tuple(f"left out {id_}: {reason}" for id_, reason in entry.metadata["excluded"])


def record(job: ExtractJob, place: Place, entry: Entry, started: float, **more: Any) -> None:
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


def refuse_other_values(job: ExtractJob, entry: Entry) -> None:
    """Fail where features came out other than the study pins them: another device or library computed those."""
    if job.content_digest not in (None, entry.content_digest):
        key = entry.key.digest[:12]
        raise StudyError(
            f"{job.name}: pinned with the values {job.content_digest[:12]}, this machine computed "
            f"{entry.content_digest[:12]}: `penultimate cache remove {key}` and pull the pinned ones, or pin these "
            "with `penultimate cache pin`"
        )


def refuse_changed_images(job: ExtractJob, place: Place) -> None:
    """Abort where an image changed while its features were computed: nothing false is published."""
    now = FileDigests(place.root / "digests.sqlite").digest_many(job.split.paths)
    for path, before, after in zip(job.split.paths, job.image_sha256, now, strict=True):
        if before != after:
            raise InputChangedError(f"{path}: changed during extraction; run again when it is settled")


def tell(line: str) -> None:
    """Say who holds the key that this process waits for."""
    sys.stderr.write(f"{line}\n")
