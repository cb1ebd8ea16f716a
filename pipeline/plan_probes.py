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
from stages.records import SPLITS, Backbone, SplitName

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
            if images is not None:
                entries = {s: keys[backbone.label, table.name, s] for s in images.dataset.splits}
            else:
                entries = dict(_find_entries(study, backbone, table.name, store))
            lacking = [s for s, key in entries.items() if key is None or key not in store]
            if lacking or not {"train", "test"} <= set(entries):
                where = "run extract first" if images else f"{resolved.absent[table.name]}; pull its features"
                yield Planned(name, "probe", "waiting", f"features not cached: {where}", columns=columns)
                continue
            job = _probe_job(study, name, backbone, table.name, images, entries, columns)
            state, why = state_of(job, history)
            yield Planned(name, "probe", state, why, job, columns)


def _probe_job(
    study: Study,
    name: str,
    backbone: Backbone,
    dataset: str,
    images: Images | None,
    entries: Mapping[SplitName, str | None],
    columns: Mapping[str, Any],
) -> ProbeJob:
    """Put a probe together; its spec is all that decides its result."""
    table = study.probe
    asked = next(entry.metric for entry in study.dataset if entry.name == dataset)
    settings = {
        "lambdas": table.lambdas.values(),
        **{k: getattr(table, k) for k in ("selection", "folds", "validation_fraction", "seed", "tolerance")},
    }
    metric = images.dataset.metric if images else asked
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
        entries={split: key for split, key in entries.items() if key},
        settings=settings,
        spec=spec,
        columns=columns,
    )


def _find_entries(
    study: Study, backbone: Backbone, dataset: str, store: Store
) -> Iterator[tuple[SplitName, str]]:
    """Find cached features by their human coordinates; several that match are asked about."""
    for split in SPLITS:
        wanted = coordinates(backbone, dataset, split, precision=study.extract.precision)
        found = store.find(**wanted)
        if len(found) > 1:
            keys = ", ".join(info.key[:12] for info in found)
            raise StudyError(
                f"{dataset}/{split} through {backbone.label}: {len(found)} cached entries match ({keys}) "
                "and the images are not here to tell which; remove the others with `penultimate cache gc`"
            )
        if found:
            yield split, found[0].key
