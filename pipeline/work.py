"""Doing one job: inputs from the cache, one call of a stage, the result into cache or ledger.

These functions run in this process or in a worker's; they take the job and a `Place`, both picklable.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import CacheKey, Entry, FileDigests
from pipeline.jobs import ExtractJob, Job, ProbeJob, TrainJob
from pipeline.ledger import Ledger
from pipeline.provenance import provenance
from pipeline.resolve import open_store
from stages.errors import DatasetError
from stages.extract.recipe import coordinates, ingredients
from stages.records import Backbone, FeatureTable, Metric, Progress, SplitName


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes."""

    root: Path
    """The cache's."""
    output: Path
    """The study's."""


@dataclass(frozen=True)
class Done:
    """What a finished job has to say."""

    line: str
    """One line for people."""
    warnings: tuple[str, ...] = ()


def perform(job: Job, place: Place, progress: Progress | None = None) -> Done:
    """Do one job and keep its result.

    Parameters
    ----------
    job : Job
    place : Place
    progress : Progress, optional
        Told how far the job is.

    Returns
    -------
    Done
        For the log; the result itself is in the cache or in the ledger.
    """
    if isinstance(job, ExtractJob):
        return _extract(job, place, progress)
    if isinstance(job, ProbeJob):
        return _probe(job, place, progress)
    return _train(job, place, progress)


def record_failure(job: Job, place: Place, reason: str, log: Path) -> None:
    """Write the failed attempt of a job into the ledger."""
    spec: Mapping[str, Any] = {"key": job.key} if isinstance(job, ExtractJob) else job.spec
    Ledger(place.output).write(
        _folder(job),
        job.name,
        status="failed",
        reason=reason,
        spec=spec,
        columns={} if isinstance(job, ExtractJob) else job.columns,
        provenance=provenance(log=str(log)),
    )


def _folder(job: Job) -> str:
    """Folder of the job's records below results/."""
    if isinstance(job, TrainJob):
        return job.regime
    return "linear_probe" if isinstance(job, ProbeJob) else "extract"


def _extract(job: ExtractJob, place: Place, progress: Progress | None) -> Done:
    """Run the forward passes that are not staged yet and publish the entry."""
    from stages.extract import extract_features

    started = time.perf_counter()
    store = open_store(place.root)
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
            raise DatasetError(f"{path}: the image changed during extraction; run again when it is settled")


def feature_table(entry: Entry) -> FeatureTable:
    """Return a cached entry as the probe wants it; the features stay memory-mapped."""
    groups = entry.row_metadata.get("group")
    # Foreign features (`cache import`) have a recipe of their own, without images.
    digests = dict(entry.key.ingredients.get("samples", ()))
    return FeatureTable(
        features=entry.features,
        labels=entry.labels,
        ids=entry.ids,
        class_names=tuple(entry.metadata["class_names"]),
        groups=tuple(g or "" for g in groups) if groups and any(groups) else None,
        image_sha256=tuple(digests[id_] for id_ in entry.ids) if digests else None,
        digest=entry.content_digest,
    )


def _probe(job: ProbeJob, place: Place, progress: Progress | None) -> Done:
    """Fit, select, refit and score one linear probe."""
    from stages.probe import fit_probe
    from stages.probe.saved import probe_bytes

    store = open_store(place.root)
    entries = {split: store.read(key) for split, key in job.entries.items()}
    tables = {split: feature_table(entry) for split, entry in entries.items()}
    test = tables["test"]
    metric: Metric = job.metric or ("map_11_point" if test.multi_label else "top_1")
    result = fit_probe(
        tables["train"], tables.get("validation"), test, metric=metric, progress=progress, **job.settings
    )
    warnings = (*_left_out(entries), *result.warnings)
    scores = {"test_scores": result.test_scores}
    if result.test_logits is not None:
        scores["test_logits"] = result.test_logits
    Ledger(place.output).write(
        "linear_probe",
        job.name,
        status="complete",
        spec=job.spec,
        columns={
            **job.columns,
            "metric": metric,
            "value": result.value,
            "n_train": result.n_train,
            "n_test": result.n_test,
            "l2_lambda": result.l2_lambda,
        },
        result={
            "value": result.value,
            "l2_lambda": result.l2_lambda,
            "selection_method": result.selection_method,
            "selection": [asdict(row) for row in result.selection],
            "extras": {name: _finite(value) for name, value in result.extras.items()},
            "warnings": list(warnings),
            "seconds": result.seconds,
            "entries": {split: entry.key.digest for split, entry in entries.items()},
            "content_digests": {split: entry.content_digest for split, entry in entries.items()},
            "class_names": list(test.class_names),
        },
        provenance=provenance(),
        arrays={**scores, **_truth(test.labels, test.ids)},
        attachments={
            ".safetensors": probe_bytes(
                result, _head_metadata(job, entries["train"], metric, result.l2_lambda)
            )
        },
    )
    line = f"{metric} {100 * result.value:.2f} %, lambda {result.l2_lambda:.3g}"
    return Done(line, warnings)


def _left_out(entries: Mapping[SplitName, Entry]) -> Iterator[str]:
    """Say which images a score knows nothing of, because they could not be read."""
    for split, entry in entries.items():
        ids = [id_ for id_, _ in entry.metadata["excluded"]]
        if ids:
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            yield f"{len(ids)} unreadable images of {split} left out: {', '.join(ids[:3])}{more}"


def _head_metadata(job: ProbeJob, entry: Entry, metric: str, l2_lambda: float) -> dict[str, str]:
    """Return what a saved probe must know to be used on new images."""
    return {
        "backbone": job.backbone,
        "dataset": job.dataset,
        "metric": metric,
        "l2_lambda": repr(l2_lambda),
        "ingredients": json.dumps(dict(entry.key.ingredients), sort_keys=True),
        "coordinates": json.dumps(dict(entry.metadata["coordinates"]), sort_keys=True),
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: None stands for "not finite", which log_loss may be."""
    return value if math.isfinite(value) else None


def _truth(labels: Any, ids: tuple[str, ...]) -> dict[str, Any]:
    """Return labels and ids as arrays for the statistics of later."""
    return {"labels": np.asarray(labels), "ids": np.array(ids, dtype=np.str_)}


def _train(job: TrainJob, place: Place, progress: Progress | None) -> Done:
    """Train one grid point, or the final network at the chosen one."""
    from stages.train import fine_tune, train_from_scratch

    train = fine_tune if job.regime == "fine_tune" else train_from_scratch
    result = train(
        job.backbone,
        job.dataset,
        job.recipe,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        seed=job.seed,
        fit_on=job.fit_on,
        score_on=job.score_on,
        progress=progress,
    )
    scored = job.dataset.splits[job.score_on]
    columns = {
        **job.columns,
        "metric": job.dataset.metric,
        "value": result.value,
        "n_train": result.n_train,
        "n_test": result.n_test,
        "steps": result.steps,
        "learning_rate": job.learning_rate,
        "weight_decay": job.weight_decay,
    }
    Ledger(place.output).write(
        job.regime,
        job.name,
        status=result.status,
        spec=job.spec,
        columns=columns if job.columns else {},
        result={
            "value": result.value,
            "curve": [asdict(point) for point in result.curve] if result.status == "complete" else [],
            "class_names": list(job.dataset.class_names),
            "notes": list(job.dataset.notes),
            "warnings": [*job.notes, *result.warnings],
            "steps": result.steps,
            "seconds": result.seconds,
        },
        provenance=provenance(torch=True),
        arrays={"test_scores": result.scores, **_truth(scored.labels, scored.ids)},
    )
    line = "diverged" if result.value is None else f"{job.dataset.metric} {100 * result.value:.2f} %"
    return Done(f"{line} after {result.steps} steps", (*job.notes, *result.warnings))
