"""Stage two's job: a linear probe from cached features alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Entry
from pipeline.cache_folder import open_store
from pipeline.errors import StudyError
from pipeline.feature_tables import feature_table
from pipeline.jobs import ProbeJob, ProbeRows
from pipeline.ledger import Ledger, truth
from pipeline.place import Done, Place
from pipeline.provenance import provenance
from stages.records import FeatureTable, Metric, Progress, SelectionRow, SplitName


def probe(job: ProbeJob, place: Place, progress: Progress | None) -> Done:
    """Fit, select, refit and score one linear probe."""
    from stages.probe import fit_probe
    from stages.probe.saved import probe_bytes

    store = open_store(place.root)
    entries = {split: store.read(key) for split, key in job.entries.items()}
    _refuse_other_values(job, entries)
    tables = {split: feature_table(entry) for split, entry in entries.items()}
    if job.rows is not None:
        tables = chosen_rows(tables, job.rows)
    test = tables["test"]
    metric: Metric = job.metric or ("map_11_point" if test.multi_label else "top_1")
    digests = {split: entry.content_digest for split, entry in entries.items()}
    known = job.known.rows if job.known and job.known.content_digests == digests else ()
    result = fit_probe(
        tables["train"],
        tables.get("validation"),
        test,
        metric=metric,
        known=known,
        memory=job.memory,
        progress=progress,
        **job.settings,
    )
    warnings = (*_left_out(entries), *result.warnings)
    scores: dict[str, NDArray[Any]] = {"test_scores": result.test_scores}
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
            "scored_before": [asdict(row) for row in _beyond(known, result.selection)],
            "extras": {name: _finite(value) for name, value in result.extras.items()},
            "warnings": list(warnings),
            "seconds": result.seconds,
            "entries": {split: entry.key.digest for split, entry in entries.items()},
            "content_digests": digests,
            "memory": job.memory,
            "class_names": list(test.class_names),
            **(
                {}
                if job.rows is None
                else {"rows": {"train": len(job.rows.train), "validation": len(job.rows.validation)}}
            ),
        },
        provenance=provenance(),
        arrays={**scores, **truth(test.labels, test.ids)},
        attachments={
            ".safetensors": probe_bytes(
                result, _head_metadata(job, entries["train"], metric, result.l2_lambda)
            )
        },
    )
    line = f"{metric} {100 * result.value:.2f} %, lambda {result.l2_lambda:.3g}"
    reused = sum(row.reused for row in result.selection)
    if reused:
        line += f", {reused} of {len(result.selection)} lambdas scored before"
    return Done(line, warnings)


def chosen_rows(tables: Mapping[SplitName, FeatureTable], rows: ProbeRows) -> dict[SplitName, FeatureTable]:
    """Return the rows of train and validation that a probe of few examples uses, and test as it is."""
    places: dict[str, tuple[SplitName, int]] = {}
    for split, table in tables.items():
        if split != "test":
            places |= {id_: (split, i) for i, id_ in enumerate(table.ids)}
    return {
        "train": _taken(tables, places, rows.train),
        "validation": _taken(tables, places, rows.validation),
        "test": tables["test"],
    }


def _taken(
    tables: Mapping[SplitName, FeatureTable], places: Mapping[str, tuple[SplitName, int]], ids: Sequence[str]
) -> FeatureTable:
    """Return rows by their ids, in that order; all of them stand in one split."""
    home = tables[places[ids[0]][0]]
    at = np.array([places[id_][1] for id_ in ids], dtype=np.intp)
    return replace(
        home,
        features=np.ascontiguousarray(home.features[at]),
        labels=home.labels[at],
        ids=tuple(ids),
        groups=None if home.groups is None else tuple(home.groups[i] for i in at),
        image_sha256=None if home.image_sha256 is None else tuple(home.image_sha256[i] for i in at),
    )


def _beyond(known: Sequence[SelectionRow], selection: Sequence[SelectionRow]) -> Iterator[SelectionRow]:
    """Return the known rows of lambdas that the grid lacks now: a later one may have them again."""
    now = [row.l2_lambda for row in selection]
    return (row for row in known if not any(math.isclose(row.l2_lambda, l2_lambda) for l2_lambda in now))


def _refuse_other_values(job: ProbeJob, entries: Mapping[SplitName, Entry]) -> None:
    """Refuse entries that were replaced since the plan looked at what is pinned."""
    for split, digest in job.content_digests.items():
        if entries[split].content_digest != digest:
            raise StudyError(
                f"{job.dataset}/{split}: pinned with the values {digest[:12]}, the cache now holds "
                f"{entries[split].content_digest[:12]} under the same key: run again"
            )


def _left_out(entries: Mapping[SplitName, Entry]) -> Iterator[str]:
    """Say which images a score knows nothing of, because they could not be read."""
    for split, entry in entries.items():
        ids = [id_ for id_, _ in entry.metadata["excluded"]]
        if ids:
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            yield f"{len(ids)} unreadable images of {split} left out: {', '.join(ids[:3])}{more}"


def _head_metadata(job: ProbeJob, entry: Entry, metric: str, l2_lambda: float) -> dict[str, str]:
    """Return what a saved probe must know to be used on new images."""
    recipe = {name: value for name, value in entry.key.ingredients.items() if name != "samples"}
    return {
        "backbone": job.backbone,
        "dataset": job.dataset,
        "metric": metric,
        "l2_lambda": repr(l2_lambda),
        "ingredients": json.dumps(recipe, sort_keys=True),
        "coordinates": json.dumps(dict(entry.metadata["coordinates"]), sort_keys=True),
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: None stands for "not finite", which log_loss may be."""
    return value if math.isfinite(value) else None
