"""Planning of stage two: one linear probe per backbone and data set, from cached features alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cache import Store
from pipeline.config import Study
from pipeline.jobs import KnownSelection, Planned, ProbeJob, State
from pipeline.ledger import History
from pipeline.locate import Located
from pipeline.pins import Spot
from pipeline.resolve import Resolved
from pipeline.states import score_columns, state_of
from stages.records import Backbone, Metric, SelectionRow, SplitName

PROBE_RECIPE = 1
"""Grows when the same features and settings would give another probe."""


def plan_probes(
    study: Study,
    resolved: Resolved,
    located: Mapping[Spot, Located],
    store: Store,
    history: History,
) -> Iterator[Planned]:
    """One job per backbone and data set, once all its features are cached."""
    for backbone in resolved.backbones:
        for table in study.dataset:
            name = f"probe/{backbone.label}/{table.name}"
            columns = score_columns(study, backbone, table.name, "linear_probe", seed=study.probe.seed)
            rows = resolved.rows_of(table.name)
            found = {
                spot[2]: entry for spot, entry in located.items() if spot[:2] == (backbone.label, table.name)
            }
            entries = {split: entry.key for split, entry in found.items() if entry.key is not None}
            needed = set(rows.splits if rows else ("train", "test"))
            pinned = {split for split, entry in found.items() if entry.pin is not None}
            if not needed | pinned <= set(entries):
                why = _lacking(found) or _not_cached(backbone, resolved.absent.get(table.name))
                yield Planned(name, "probe", "waiting", why, columns=columns)
                continue
            metric = rows.metric if rows else table.metric or _default_metric(store, entries)
            job = _probe_job(study, name, backbone, table.name, metric, entries, columns)
            job = replace(job, content_digests=_pinned_values(found))
            state, why = state_of(job, history)
            if state == "done":
                state, why = _from_other_values(job, history) or (state, why)
            if state != "done" and name in history.finished:
                job = replace(job, known=_known_selection(job, history))
            yield Planned(name, "probe", state, why, job, columns)


def _lacking(found: Mapping[SplitName, Located]) -> str:
    """Say what keeps a probe waiting that is more than features not yet cached."""
    conflicts = [entry.conflict for entry in found.values() if entry.conflict]
    lacking = [f"{split}: {entry.lacking}" for split, entry in found.items() if entry.lacking]
    return "; ".join([*conflicts, *lacking, *(["extract or pull it"] if lacking else [])])


def _not_cached(backbone: Backbone, absent: str | None) -> str:
    """Say that features are not cached, and what else is not on this machine to make them from."""
    if absent is None:
        return "features not cached: run extract first"
    lacking = [absent]
    weights = backbone.weights
    if weights.kind in ("file", "package") and weights.path is None:
        lacking.append(f"the weights {weights.label} are not here either")
    return f"features not cached, nor can they be made here: {'; '.join(lacking)}: mend that, or pull them"


def _pinned_values(found: Mapping[SplitName, Located]) -> dict[SplitName, str]:
    """Return the content digests that the study pins."""
    return {
        split: entry.pin.content_digest
        for split, entry in found.items()
        if entry.pin is not None and entry.pin.content_digest is not None
    }


def _from_other_values(job: ProbeJob, history: History) -> tuple[State, str] | None:
    """Find out that a result was made from other bytes than those that are pinned now."""
    record = history.result_of(job.name, job.spec_digest)
    used = record.result.get("content_digests", {}) if record and job.content_digests else {}
    for split, digest in job.content_digests.items():
        if used.get(split) != digest:
            return "stale", f"made from other values of {split} than the pinned {digest[:12]}"
    return None


def _known_selection(job: ProbeJob, history: History) -> KnownSelection | None:
    """Return the selection of the last result, where only the grid of lambdas is another now."""
    record = history.finished[job.name]
    if _without_grid(record.spec) != _without_grid(job.spec):
        return None
    result = record.result
    scored = [*result["selection"], *result.get("scored_before", ())]
    rows = tuple(SelectionRow(row["l2_lambda"], row["value"], row["converged"]) for row in scored)
    return KnownSelection(rows, result.get("content_digests", {}))


def _without_grid(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of a probe's spec but its lambdas."""
    return {**spec, "probe": {name: value for name, value in spec["probe"].items() if name != "lambdas"}}


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
        memory=table.memory,
    )


def _default_metric(store: Store, entries: Mapping[SplitName, str]) -> Metric:
    """Return the metric that labels of this kind have where the study names none."""
    return "map_11_point" if store.info(entries["test"]).multi_label else "top_1"
