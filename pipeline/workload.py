"""What is left of a plan, as phases of tasks: also what is not planned yet because something decides it first.

The probes that wait for features, the rungs of a search that wait for the one before, and the final trainings that
wait for their search are reckoned with too: they are what a user is about to pay for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cache import Store
from pipeline.extraction_groups import ExtractionGroup, plan_units
from pipeline.jobs import STAGE_OF_REGIME, ExtractJob, Planned, ProbeJob, Stage
from pipeline.plan import Plan
from pipeline.rates import JOIN, JOIN_CELL, PROBE_BESIDE, START_PROBE, START_TORCH
from pipeline.task_seconds import Clock, cached_shape, probe_job_seconds
from pipeline.tasks import Phase, Task, Work
from pipeline.training_search import EVERY_POINT_DIVERGED
from pipeline.workload_training import TRAININGS, add_trainings
from stages.records import Backbone

MEMORY = 16 << 30
"""Bytes that the networks of one pass are taken to have, on any hardware."""
_EVERYTHING = re.compile("")


def work_left(
    plan: Plan,
    clock: Clock,
    store: Store,
    *,
    stages: Sequence[Stage],
    pattern: re.Pattern[str] = _EVERYTHING,
    processes: int | None = None,
    unknown_weights: bool = True,
) -> Work:
    """Return what some stages of a plan have to do.

    Parameters
    ----------
    plan : Plan
    clock : Clock
        Of the hardware.
    store : Store
        Tells the shape of cached features whose images are not here.
    stages : sequence of str
    pattern : re.Pattern
        Jobs whose names do not match are left alone.
    processes : int, optional
        Probes and trainings side by side on one machine; default one a core.
    unknown_weights : bool
        Whether extractions count whose weights are not here yet: their features may be cached.

    Returns
    -------
    Work
    """
    work = Work()
    left = [
        p for p in plan.jobs if p.state != "done" and p.why != EVERY_POINT_DIVERGED and pattern.search(p.name)
    ]
    if "extract" in stages:
        work.add(_extraction(left, clock, unknown_weights))
    processes = processes or clock.hardware.cores
    if "probe" in stages:
        work.add(_probes(plan, left, store, clock, processes, work.unknown))
    for regime in TRAININGS:
        if STAGE_OF_REGIME[regime] in stages:
            add_trainings(plan, left, regime, clock, processes, work)
    if "join" in stages and work.phases:
        cells = sum(bool(planned.columns) for planned in plan.jobs)
        work.add(Phase("join", (Task("join", JOIN_CELL * cells, 0),), JOIN))
    return work


def _extraction(left: Sequence[Planned], clock: Clock, unknown_weights: bool) -> Phase:
    """Group extractions as a run would, and take the seconds of every pass."""
    jobs = [p.job for p in left if isinstance(p.job, ExtractJob)]
    known = [job for job in jobs if job.key is not None]
    tasks = []
    for unit in plan_units(known, lambda _device: 2 * MEMORY):
        members = unit.jobs if isinstance(unit, ExtractionGroup) else (unit,)
        shared = [job for job in members if isinstance(job, ExtractJob)]
        tasks.append(Task(members[0].name, clock.extraction(shared), len(shared)))
    if unknown_weights:
        tasks += [Task(job.name, clock.extraction([job])) for job in jobs if job.key is None]
    return Phase("extract", tuple(tasks), START_TORCH)


def _probes(
    plan: Plan, left: Sequence[Planned], store: Store, clock: Clock, processes: int, unknown: list[str]
) -> Phase:
    """Take the seconds of every probe, those too that wait for their features."""
    table = plan.study.probe
    settings = {
        "lambdas": table.lambdas.count,
        "fits": table.folds if table.selection == "cross_validation" else 1,
    }
    backbones = {backbone.label: backbone for backbone in plan.resolved.backbones}
    tasks, missing = [], 0
    for planned in left:
        if planned.stage == "probe":
            job = planned.job if isinstance(planned.job, ProbeJob) else None
            shape = _shape(planned, job, plan, backbones, store)
            if shape is None:
                missing += 1
            else:
                tasks.append(Task(planned.name, PROBE_BESIDE + probe_job_seconds(job, *shape, settings)))
    if missing:
        unknown.append(f"{missing} probes are not estimated: neither images nor features are on this machine")
    return Phase("probe", tuple(tasks), START_PROBE, clock.hardware.cores, processes)


def _shape(
    planned: Planned, job: ProbeJob | None, plan: Plan, backbones: dict[str, Backbone], store: Store
) -> tuple[int, int, int] | None:
    """Return rows, dimension and classes of what a probe is fitted to; None where nothing tells them."""
    columns = planned.columns
    if job is not None and job.rows is not None and (shape := cached_shape(store, job)) is not None:
        return len(job.rows.train) + len(job.rows.validation), *shape[1:]
    variant = f"@{columns['variant']}" if columns["variant"] else ""
    backbone = backbones.get(f"{columns['backbone']}{variant}")
    images = plan.resolved.images.get(columns["dataset"])
    if backbone is not None and backbone.dimension and images is not None:
        splits = images.dataset.splits
        rows = sum(len(splits[name]) for name in splits if name != "test")
        return rows, backbone.dimension, len(images.dataset.class_names)
    return None if job is None else cached_shape(store, job)
