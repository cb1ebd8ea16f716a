"""Planning of stage three's training jobs: the grid, the choice on validation, the final trainings.

The grid is run with the first seed on train and scored on validation; the chosen point is trained again
on train + validation, once a seed, and scored on test once (protocol, "Fine-tuning"). A grid of one point
leaves nothing to choose, so only the final trainings are run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.budgets import grid_of, recipe_of
from pipeline.config import Study
from pipeline.interrupted import training_state
from pipeline.jobs import STAGE_OF_REGIME, Planned, TrainJob
from pipeline.ledger import History
from pipeline.resolve import Images, Resolved, with_network
from pipeline.states import score_columns
from pipeline.tables import TrainTable
from pipeline.training_cell import Cell, cell_of
from pipeline.training_search import Search
from pipeline.work_train import lacks_weights
from stages.records import Backbone, Regime
from stages.train.grid import grid, rungs

TRAINED: tuple[Regime, ...] = ("fine_tune", "from_scratch")


def plan_regime(
    study: Study,
    regime: Regime,
    table: TrainTable,
    resolved: Resolved,
    history: History,
) -> Iterator[Planned]:
    """Plan every training job of one regime."""
    for backbone in with_network(resolved):
        for entry in study.dataset:
            images = resolved.images.get(entry.name)
            if images is not None:
                yield from plan_cell(study, regime, table, backbone, images, history)
                continue
            yield from plan_without_images(study, regime, table, backbone, entry.name, resolved, history)


def unhalved(study: Study) -> Iterator[str]:
    """Say which regimes ask for successive halving of a grid that has too few points or steps for it."""
    for regime in TRAINED:
        table = study.training(regime)
        if table is None or table.search != "halving":
            continue
        points, steps = grid(*grid_of(table, regime)), recipe_of(table, regime).steps
        if len(points) > 1 and len(rungs(len(points), steps, table.halving_factor)) == 1:
            yield (
                f"{regime}: {len(points)} grid points and {steps} steps are too few to halve by "
                f"{table.halving_factor}: all are trained at full length"
            )


def plan_cell(
    study: Study,
    regime: Regime,
    table: TrainTable,
    backbone: Backbone,
    images: Images,
    history: History,
    *,
    suffix: str = "",
    refit: bool = True,
) -> Iterator[Planned]:
    """Plan the trainings of one backbone on one data set: the search, then the final ones.

    Parameters
    ----------
    suffix : str
        Put behind the data set's name in the jobs' names.
    refit : bool
        Whether the final trainings are fitted to train + validation rather than to train alone.
    """
    cell = cell_of(study, regime, table, backbone, images, history, suffix)
    yield from _plan_cell(replace(cell, refit=refit), history)


def plan_without_images(
    study: Study,
    regime: Regime,
    table: TrainTable,
    backbone: Backbone,
    dataset: str,
    resolved: Resolved,
    history: History,
    *,
    suffix: str = "",
) -> Iterator[Planned]:
    """Take the results that are there as they are: without the images nothing can be compared or run.

    Parameters
    ----------
    suffix : str
        As in `plan_cell`.
    """
    for seed in table.seeds:
        name = f"{regime}/{backbone.label}/{dataset}{suffix}/final,seed={seed}"
        columns = score_columns(study, backbone, dataset, regime, seed=seed)
        record = history.finished.get(name)
        if record is not None:
            yield Planned(name, STAGE_OF_REGIME[regime], "done", str(record.path), columns=columns)
        else:
            why = resolved.absent[dataset]
            yield Planned(name, STAGE_OF_REGIME[regime], "waiting", why, columns=columns)


def _plan_cell(cell: Cell, history: History) -> Iterator[Planned]:
    """Plan the search, and the final trainings once a point can be chosen."""
    stage = STAGE_OF_REGIME[cell.regime]
    points = grid(*grid_of(cell.table, cell.regime))
    search = Search(cell, points, history)
    if len(points) > 1:
        yield from search.planned()
    chosen, why_not = search.choice()
    for seed in cell.table.seeds:
        final = cell.job(chosen.point if chosen else points[0], seed, final=True)
        if chosen is None:
            yield Planned(final.name, stage, "waiting", why_not, columns=final.columns)
            continue
        final = replace(final, notes=chosen.warnings)
        state, why = training_state(final, history, cell.output)
        if state == "done" and _never_kept(final, cell, history):
            state, why = "missing", "its weights were not kept"
        yield Planned(final.name, stage, state, why, final, final.columns)


def _never_kept(final: TrainJob, cell: Cell, history: History) -> bool:
    """Whether weights are asked for that a finished training has not left; a diverged one has none."""
    record = history.result_of(final.name, final.spec_digest)
    whole = record is not None and record.status == "complete"
    return whole and lacks_weights(final, cell.output)
