"""What a study's own records say of the rates: measured seconds over estimated ones, stage by stage.

Only records of this machine count. The correction is the sum of what was measured over the sum of what the
rates give for the same jobs; the spread of the single jobs around it is what the estimate claims for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cache import Store
from cache.system import host_name
from pipeline.jobs import STAGES, ExtractJob, ProbeJob, Stage, TrainJob
from pipeline.ledger import Record
from pipeline.plan import Plan
from pipeline.task_seconds import Clock, cached_shape, probe_job_seconds

FEW = 3
"""Fewer measured jobs say nothing of their spread."""
LEAST_FACTOR = 1.25
"""No estimate claims to be nearer."""
FACTOR_OF_FEW = 1.6


@dataclass(frozen=True)
class OwnRate:
    """What the records of one stage say."""

    correction: float
    """Measured over estimated seconds."""
    factor: float
    """Within which a single job mostly lies of the corrected estimate."""
    records: int


Pair = tuple[float, float]
"""Measured and estimated seconds."""


def own_rates(plan: Plan, finished: Mapping[str, Record], clock: Clock, store: Store) -> dict[Stage, OwnRate]:
    """Return what is known by stage; a stage without records of this machine is absent.

    Parameters
    ----------
    plan : Plan
    finished : mapping of str to Record
        The newest finished attempt of each job.
    clock : Clock
        Of this machine.
    store : Store
        Of the features that the probes were fitted to.
    """
    here = {name: record for name, record in finished.items() if record.provenance.get("host") == host_name()}
    pairs: dict[Stage, list[Pair]] = {
        "extract": list(_passes(plan, here, clock)),
        "probe": list(_probes(plan, here, store)),
        "fine-tune": list(_trainings(plan, "fine-tune", here, clock)),
        "scratch": list(_trainings(plan, "scratch", here, clock)),
    }
    return {stage: rate for stage in STAGES if (rate := summarise(pairs.get(stage, ()))) is not None}


def summarise(pairs: Iterable[Pair]) -> OwnRate | None:
    """Return correction and spread of measured and estimated seconds; None where there are none.

    Examples
    --------
    >>> summarise([(2.0, 1.0), (4.0, 2.0), (2.0, 1.0)])
    OwnRate(correction=2.0, factor=1.25, records=3)
    """
    known = [(measured, estimated) for measured, estimated in pairs if measured > 0 and estimated > 0]
    if not known:
        return None
    correction = sum(measured for measured, _ in known) / sum(estimated for _, estimated in known)
    if len(known) < FEW:
        return OwnRate(correction, FACTOR_OF_FEW, len(known))
    weight = sum(estimated for _, estimated in known)
    squares = sum(e * math.log(m / (e * correction)) ** 2 for m, e in known)
    return OwnRate(correction, max(LEAST_FACTOR, math.exp(math.sqrt(squares / weight))), len(known))


def _passes(plan: Plan, finished: Mapping[str, Record], clock: Clock) -> Iterator[Pair]:
    """Yield the passes of stage one; all backbones of a pass have the rate of the pass in their records."""
    passes: dict[tuple[str, str, float], list[ExtractJob]] = {}
    together: dict[tuple[str, str, float], int] = {}
    for planned in plan.of("extract"):
        job, record = planned.job, finished.get(planned.name)
        if record is None or not isinstance(job, ExtractJob):
            continue
        result = record.result
        if result.get("images_per_second") and not result.get("resumed_at"):
            key = job.dataset, str(job.split.name), float(result["images_per_second"])
            passes.setdefault(key, []).append(job)
            together[key] = result.get("together", 1)
    for key, jobs in passes.items():
        if len(jobs) == together[key]:
            rows = len(jobs[0].split)
            yield rows / key[2], rows * clock.pass_image(jobs)


def _probes(plan: Plan, finished: Mapping[str, Record], store: Store) -> Iterator[Pair]:
    """Yield the probes whose whole grid was fitted."""
    for planned in plan.of("probe"):
        job, record = planned.job, finished.get(planned.name)
        if record is None or not isinstance(job, ProbeJob) or planned.state != "done" or job.rows is not None:
            continue
        result, shape = record.result, cached_shape(store, job)
        selection = result.get("selection", ())
        if shape is not None and not any(row.get("reused") for row in selection):
            fits = job.settings["folds"] if job.settings["selection"] == "cross_validation" else 1
            settings = {"lambdas": len(selection), "fits": fits}
            yield result.get("seconds", 0.0), probe_job_seconds(None, *shape, settings)


def _trainings(plan: Plan, stage: Stage, finished: Mapping[str, Record], clock: Clock) -> Iterator[Pair]:
    """Yield the trainings that came to their end; a stale one as it was run, not as it would be now."""
    for planned in plan.of(stage):
        job, record = planned.job, finished.get(planned.name)
        if record is not None and isinstance(job, TrainJob) and record.status == "complete":
            then = record.spec.get("training", {})
            ran = {name: then[name] for name in ("steps", "batch_size", "image_size") if name in then}
            job = replace(job, recipe=replace(job.recipe, **ran))
            on_gpu = clock.on_gpu(job.recipe.device)
            threads = 1 if on_gpu else record.provenance.get("threads") or clock.hardware.cores
            yield record.result.get("seconds", 0.0), clock.training(job) / threads
