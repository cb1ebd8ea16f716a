"""What is left of stage three's trainings: searches, the rungs and final trainings that wait for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.budgets import grid_of, recipe_of
from pipeline.jobs import STAGE_OF_REGIME, Planned, TrainJob
from pipeline.plan import Plan
from pipeline.rates import START_TORCH
from pipeline.task_seconds import Clock
from pipeline.tasks import Phase, Task, Work
from stages.records import Regime
from stages.train.grid import rungs

TRAININGS: tuple[Regime, ...] = ("fine_tune", "from_scratch")


def add_trainings(
    plan: Plan, left: Sequence[Planned], regime: Regime, clock: Clock, processes: int, work: Work
) -> None:
    """Add the phases of one regime: the planned rung of the searches, the later ones, the final trainings.

    Parameters
    ----------
    plan : Plan
    left : sequence of Planned
        The jobs that are not done.
    regime : str
    clock : Clock
    processes : int
        Trainings side by side on one machine's cores.
    work : Work
        Added to.
    """
    stage, cells = STAGE_OF_REGIME[regime], _cells(plan, regime)
    mine = [planned for planned in left if planned.stage == stage]
    known = [(planned, job) for planned in mine if (job := _template(planned, cells)) is not None]
    search = [Task(p.name, clock.training(job)) for p, job in known if not p.columns]
    finals = [
        Task(p.name, clock.training(job, steps=_full(plan, regime, p), final=True))
        for p, job in known
        if p.columns
    ]
    waiting = {_cell_of(p.name) for p, _ in known if p.columns and p.state == "waiting"}
    later = [rung for cell in waiting for rung in _later_rungs(plan, regime, cells[cell], clock)]
    on_gpu = any(clock.on_gpu(job.recipe.device) for _, job in known)
    decode = [] if on_gpu else _decoding([job for _, job in known], clock)
    cores, side_by_side = (1, 1) if on_gpu else (clock.hardware.cores, processes)
    search, finals = ([*decode, *search], finals) if search else (search, [*decode, *finals])
    for tasks in (search, later, finals):
        work.add(Phase(stage, tuple(tasks), START_TORCH, cores, side_by_side))
    if len(known) < len(mine):
        lost = len(mine) - len(known)
        work.unknown.append(f"{lost} jobs of {stage} are not estimated: their images are not on this machine")


def _template(planned: Planned, cells: Mapping[str, TrainJob]) -> TrainJob | None:
    """Return a job's own training, or one of its cell where it is not decided yet."""
    return planned.job if isinstance(planned.job, TrainJob) else cells.get(_cell_of(planned.name))


def _decoding(jobs: Sequence[TrainJob], clock: Clock) -> list[Task]:
    """Return the decoding of every data set's training images, done once for all jobs."""
    sets = {job.dataset.name: job for job in jobs}
    return [Task("decode", clock.decoding(job), 0) for job in sets.values()]


def _cells(plan: Plan, regime: Regime) -> dict[str, TrainJob]:
    """Return one job of every backbone on every data set: the longest that is planned."""
    found: dict[str, TrainJob] = {}
    for planned in plan.of(STAGE_OF_REGIME[regime]):
        if isinstance(planned.job, TrainJob):
            cell = _cell_of(planned.name)
            if cell not in found or planned.job.recipe.steps > found[cell].recipe.steps:
                found[cell] = planned.job
    return found


def _cell_of(name: str) -> str:
    """Return regime, backbone and data set of a training's name."""
    return name.rpartition("/")[0]


def _full(plan: Plan, regime: Regime, planned: Planned | None = None) -> int:
    """Return the steps of a training at full length: its own, where it is a point of a comparison of lengths."""
    if planned is not None and planned.part is not None and planned.part.steps is not None:
        return planned.part.steps
    table = plan.study.training(regime)
    assert table is not None
    return recipe_of(table, regime).steps


def _later_rungs(plan: Plan, regime: Regime, job: TrainJob, clock: Clock) -> Iterator[Task]:
    """Yield the trainings of the rungs of successive halving that come after the one that is planned."""
    table = plan.study.training(regime)
    assert table is not None
    if table.search != "halving":
        return
    rates, decays = grid_of(table, regime)
    for rung in rungs(len(rates) * len(decays), _full(plan, regime), table.halving_factor):
        if rung.steps > job.recipe.steps:
            task = Task(f"{_cell_of(job.name)}, {rung.steps} steps", clock.training(job, steps=rung.steps))
            yield from [task] * rung.points
