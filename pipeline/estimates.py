"""What a study will still take: seconds by stage, disk, and how time falls with workers.

The model is small and stands here and in the modules that this one puts together:

* extraction, of a pass of several backbones over a split (`pipeline.task_seconds`): rows x (decode + the sum of
  the forward passes), on a CPU shared out over its cores; beside a GPU the slower of the two counts;
* a forward pass: GMACs, activations and layers of the network, each times a constant (`pipeline.rates`);
* a training: steps x batch x (forward and backward, with constants of their own, and the crop), the images
  decoded once, one look at the split that is scored;
* a probe: a power law in rows, dimension, classes, lambdas and folds;
* the start of processes, the publishing of entries and the join, each a constant.

Phases come one after the other, as in a run. Within a phase the longest task goes first to the worker that is free
first (`pipeline.simulate`). A worker is one machine of the hardware. Where the study has records of this machine,
the seconds of a stage are multiplied with what was measured over what the model gives for the same jobs.

How far it came out on a real study stands in `AGAINST_A_RUN`. What it cannot know: other work on the machine, slow
disks and networks, trainings that diverge early.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache_folder import cache_root, open_store
from pipeline.footprint import Footprint, footprint, too_little_disk
from pipeline.jobs import STAGES, Stage
from pipeline.own_rates import OwnRate, own_rates
from pipeline.plan import Plan
from pipeline.rates import Hardware, hardware
from pipeline.resolve import with_network
from pipeline.task_seconds import Clock
from pipeline.tasks import Phase, total_seconds
from pipeline.workload import work_left
from stages.costs import forward_cost

AGAINST_A_RUN = (
    "the demo study, estimated at 163 s for 2 cores, took 254 s on two cores of an Intel Xeon and 96 s of two cores "
    "of an AMD EPYC"
)
"""Measured once each, with `penultimate demo`: the Xeon quiet, by the wall; the EPYC busy, by processor time."""

WORKERS = (1, 8, 64)
"""For how many the time is told."""


@dataclass(frozen=True)
class StageEstimate:
    """One stage."""

    stage: Stage
    jobs: int
    """That are left, those too that are not planned yet."""
    seconds: float
    """Wall time with one worker, start-up included."""
    factor: float
    """The truth mostly lies within this factor."""
    source: str
    """Where the rates come from."""


@dataclass(frozen=True)
class Estimate:
    """What is left of a study on some hardware."""

    hardware: Hardware
    stages: tuple[StageEstimate, ...]
    by_workers: Mapping[int, float]
    """Wall seconds with so many machines of the hardware."""
    disk: Footprint
    shortages: tuple[str, ...]
    """File systems of this machine that have less free than will be written there, one line each."""
    unknown: tuple[str, ...]
    """What is not in the figures, or guessed, one line a kind."""

    @property
    def seconds(self) -> float:
        """Wall time with one worker."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def factor(self) -> float:
        """Within which the truth mostly lies: that of the stages, by their shares of the time."""
        if not self.seconds:
            return 1.0
        return sum(stage.factor * stage.seconds for stage in self.stages) / self.seconds


def estimate(
    plan: Plan,
    on: Hardware | None = None,
    *,
    stages: Sequence[Stage] = STAGES,
    only: str | None = None,
    processes: int | None = None,
    root: Path | None = None,
    unknown_weights: bool = True,
) -> Estimate:
    """Estimate what is left of a plan.

    Parameters
    ----------
    plan : Plan
    on : Hardware, optional
        Default this machine, with the rates of the study's own records where there are any.
    stages : sequence of str
    only : str, optional
        Regular expression searched in job names; other jobs are left alone.
    processes : int, optional
        Probes and trainings side by side on one machine; default one a core.
    root : Path, optional
        The cache's root; default $PENULTIMATE_CACHE, else ~/.cache/penultimate.
    unknown_weights : bool
        Whether extractions count whose weights are not on this machine yet: their features may be cached.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> from pipeline.config import load_study
    >>> from pipeline.plan import plan
    >>> from pipeline.rates import hardware
    >>> estimate(plan(load_study("study.toml")), hardware("h200")).seconds  # doctest: +SKIP
    """
    on = on or hardware()
    root = root or cache_root()
    clock, store, pattern = Clock(on), open_store(root), re.compile(only or "")
    work = work_left(
        plan,
        clock,
        store,
        stages=stages,
        pattern=pattern,
        processes=processes,
        unknown_weights=unknown_weights,
    )
    own: Mapping[Stage, OwnRate] = {}
    if on.here and work.phases:
        own = own_rates(plan, plan.history.finished, clock, store)
    phases = [p.corrected(own[p.stage].correction) if p.stage in own else p for p in work.phases]
    left = [p for p in plan.jobs if p.state != "done" and p.stage in stages and pattern.search(p.name)]
    disk = footprint(left, plan.resolved, clock.sizes, 1 if on.gpu else processes or on.cores)
    return Estimate(
        hardware=on,
        stages=tuple(_stage(stage, phases, on, own.get(stage)) for stage in STAGES if _of(stage, phases)),
        by_workers={workers: total_seconds(phases, workers) for workers in WORKERS},
        disk=disk,
        shortages=tuple(too_little_disk(disk, root, plan.study.output)),
        unknown=(*work.unknown, *_guessed(plan, work.phases)),
    )


def _guessed(plan: Plan, phases: Sequence[Phase]) -> Iterator[str]:
    """Say which networks are not in the table of costs."""
    if any(phase.stage not in ("probe", "join") for phase in phases):
        for backbone in with_network(plan.resolved):
            if not forward_cost(backbone.name, backbone.preprocessing.size).counted:
                yield f"{backbone.label}: its cost is not known, ResNet-50's is taken"


def _of(stage: Stage, phases: Sequence[Phase]) -> list[Phase]:
    """Return the phases of a stage."""
    return [phase for phase in phases if phase.stage == stage]


def _stage(stage: Stage, phases: Sequence[Phase], on: Hardware, own: OwnRate | None) -> StageEstimate:
    """Add up the phases of a stage."""
    mine = _of(stage, phases)
    jobs = sum(phase.jobs for phase in mine)
    if own is None:
        return StageEstimate(stage, jobs, total_seconds(mine), on.factor, "shipped")
    source = f"{own.records} records of this study, {own.correction:.2f} times the shipped seconds"
    return StageEstimate(stage, jobs, total_seconds(mine), own.factor, source)
