"""Planning of stage two: one linear probe per backbone and data set, from cached features alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cache import Store
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.jobs import Planned, ProbeJob
from pipeline.ledger import History
from pipeline.resolve import Images, Resolved
from pipeline.states import score_columns, state_of
from stages.extract.recipe import coordinates
from stages.records import SPLITS, Backbone, Metric, SplitName

PROBE_RECIPE = 1
"""Grows when the same features and settings would give another probe."""


def plan_probes(
    study: Study,
    resolved: Resolved,
    store: Store,
    keys: Mapping[tuple[str, str, SplitName], str | None],
    history: History,
) -> Iterator[Planned]:
    """One job per backbone and data set, once all its features are cached."""
    for backbone in resolved.backbones:
        for table in study.dataset:
            name = f"probe/{backbone.label}/{table.name}"
            columns = score_columns(study, backbone, table.name, "linear_probe", seed=study.probe.seed)
            images = resolved.images.get(table.name)
            entries = _cached(study, backbone, table.name, images, keys, store)
            if not set(images.dataset.splits if images else ("train", "test")) <= set(entries):
                where = "run extract first" if images else f"{resolved.absent[table.name]}; pull its features"
                yield Planned(name, "probe", "waiting", f"features not cached: {where}", columns=columns)
                continue
            metric = images.dataset.metric if images else table.metric or _default_metric(store, entries)
            job = _probe_job(study, name, backbone, table.name, metric, entries, columns)
            state, why = state_of(job, history)
            yield Planned(name, "probe", state, why, job, columns)


def _probe_job(
    study: Study,
    name: str,
    backbone: Backbone,
    dataset: str,
    metric: Metric,
    entries: Mapping[SplitName, str],
    columns: Mapping[str, Any],
) -> ProbeJob:
    """Put a probe together; its spec is all that decides its result."""
    table = study.probe
    settings = {
        "lambdas": table.lambdas.values(),
        **{k: getattr(table, k) for k in ("selection", "folds", "validation_fraction", "seed", "tolerance")},
    }
    spec = {
        "recipe": PROBE_RECIPE,
        "metric": metric,
        "features": dict(entries),
        "probe": {**settings, "lambdas": study.probe.lambdas.model_dump()},
    }
    return ProbeJob(
        name=name,
        backbone=backbone.label,
        dataset=dataset,
        metric=metric,
        entries=dict(entries),
        settings=settings,
        spec=spec,
        columns=columns,
    )


def _default_metric(store: Store, entries: Mapping[SplitName, str]) -> Metric:
    """Return the metric that labels of this kind have where the study names none."""
    return "map_11_point" if store.info(entries["test"]).multi_label else "top_1"


def _cached(
    study: Study,
    backbone: Backbone,
    dataset: str,
    images: Images | None,
    keys: Mapping[tuple[str, str, SplitName], str | None],
    store: Store,
) -> dict[SplitName, str]:
    """Return the keys of the splits whose features are cached.

    Where images and weights are here the keys are known. Where one of them is not, entries are found by
    their human coordinates; with the images here, their rows and image hashes must match.
    """
    cached: dict[SplitName, str] = {}
    for split in images.dataset.splits if images else SPLITS:
        key = keys.get((backbone.label, dataset, split))
        wanted = wanted_coordinates(study, backbone, dataset, split)
        found = [key] if key else [info.key for info in store.find(**wanted)]
        if images is not None and key is None and backbone.weights.kind != "cached":
            found = [digest for digest in found if _same_rows(store, digest, images, split)]
        if len(found) > 1:
            raise StudyError(
                f"{dataset}/{split} through {backbone.label}: {len(found)} cached entries match "
                f"({', '.join(digest[:12] for digest in found)}) and nothing here tells which is meant; "
                "see `penultimate cache list`"
            )
        if found and found[0] in store:
            cached[split] = found[0]
    return cached


def wanted_coordinates(study: Study, backbone: Backbone, dataset: str, split: SplitName) -> dict[str, str]:
    """Return what a split's features are found by; imported ones by their names alone."""
    if backbone.weights.kind == "cached":
        return {"backbone": backbone.label, "dataset": dataset, "split": split}
    return coordinates(backbone, dataset, split, precision=study.extract.precision)


def _same_rows(store: Store, key: str, images: Images, split: SplitName) -> bool:
    """Whether an entry was made from these very images."""
    samples = store.read(key).key.ingredients.get("samples")
    ids, digests = images.dataset.splits[split].ids, images.image_sha256[split]
    return samples is not None and [list(pair) for pair in samples] == [
        list(p) for p in zip(ids, digests, strict=True)
    ]
