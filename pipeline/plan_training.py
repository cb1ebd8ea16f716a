"""Planning of stage three's training jobs: the grid, the choice on validation, the final trainings.

The grid is run with the first seed on train and scored on validation; the chosen point is trained again
on train + validation, once a seed, and scored on test once (protocol, "Fine-tuning"). A grid of one point
leaves nothing to choose, so only the final trainings are run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.budgets import grid_of, recipe_of
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.jobs import STAGE_OF_REGIME, Planned, TrainJob
from pipeline.ledger import History
from pipeline.resolve import Images, Resolved, images_digest, with_network
from pipeline.states import score_columns, state_of
from pipeline.tables import TrainTable
from stages.records import WITHOUT_EFFECT, Backbone, Dataset, Regime, SplitName, TrainRecipe
from stages.splitting import hold_out
from stages.train.grid import GridPoint, Selection, grid, select

EVERY_POINT_DIVERGED = "every grid point diverged"
"""Why a final training waits for ever; the join shows the cell as diverged."""

TRAIN_RECIPE = 1
"""Grows when the same ingredients would train to another result."""


@dataclass(frozen=True)
class _Cell:
    """One backbone on one data set in one regime: all that its jobs share."""

    study: Study
    regime: Regime
    table: TrainTable
    backbone: Backbone
    images: Images
    recipe: TrainRecipe
    dataset: Dataset
    base_spec: Mapping[str, Any]

    @property
    def prefix(self) -> str:
        """What the names of its jobs begin with."""
        return f"{self.regime}/{self.backbone.label}/{self.dataset.name}"

    def job(self, point: GridPoint, seed: int, *, final: bool) -> TrainJob:
        """Return the job of one grid point."""
        rate, decay = point.learning_rate, point.weight_decay
        fit_on: tuple[SplitName, ...] = ("train",)
        if final and "validation" in self.dataset.splits:
            fit_on = ("train", "validation")
        score_on: SplitName = "test" if final else "validation"
        what = f"final,seed={seed}" if final else f"lr={rate!r},wd={decay!r},seed={seed}"
        columns = (
            score_columns(self.study, self.backbone, self.dataset.name, self.regime, seed=seed)
            if final
            else {}
        )
        return TrainJob(
            name=f"{self.prefix}/{what}",
            regime=self.regime,
            backbone=self.backbone,
            dataset=self.dataset,
            recipe=self.recipe,
            learning_rate=rate,
            weight_decay=decay,
            seed=seed,
            fit_on=fit_on,
            score_on=score_on,
            spec={
                **self.base_spec,
                "learning_rate": rate,
                "weight_decay": decay,
                "seed": seed,
                "fit_on": list(fit_on),
                "score_on": score_on,
            },
            columns=columns,
            checkpoint_minutes=self.table.checkpoint_minutes,
            keep_weights=final and self.table.keep_weights,
        )


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
                cell = _cell(study, regime, table, backbone, images)
                yield from _plan_cell(cell, history)
                continue
            yield from _plan_without_images(study, regime, table, backbone, entry.name, resolved, history)


def _plan_without_images(
    study: Study,
    regime: Regime,
    table: TrainTable,
    backbone: Backbone,
    dataset: str,
    resolved: Resolved,
    history: History,
) -> Iterator[Planned]:
    """Take the results that are there as they are: without the images nothing can be compared or run."""
    for seed in table.seeds:
        name = f"{regime}/{backbone.label}/{dataset}/final,seed={seed}"
        columns = score_columns(study, backbone, dataset, regime, seed=seed)
        record = history.finished.get(name)
        if record is not None:
            yield Planned(name, STAGE_OF_REGIME[regime], "done", str(record.path), columns=columns)
        else:
            why = resolved.absent[dataset]
            yield Planned(name, STAGE_OF_REGIME[regime], "waiting", why, columns=columns)


def _cell(study: Study, regime: Regime, table: TrainTable, backbone: Backbone, images: Images) -> _Cell:
    """Gather what the jobs of one cell share."""
    learning_rates, weight_decays = grid_of(table, regime)
    recipe = recipe_of(table, regime)
    dataset = images.dataset
    if table.label_smoothing and dataset.multi_label:
        raise StudyError(
            f"{regime}.label_smoothing {table.label_smoothing:g} means nothing for the multi-label set "
            f"{dataset.name!r}: leave it out, or put that set into a study of its own"
        )
    needs_validation = len(learning_rates) * len(weight_decays) > 1
    if needs_validation and "validation" not in dataset.splits:
        dataset = with_validation(images, table.validation_fraction, seed=table.seeds[0])
    shown = {k: v for k, v in asdict(recipe).items() if k not in WITHOUT_EFFECT}
    spec = {
        "recipe": TRAIN_RECIPE,
        "backbone": {
            "name": backbone.name,
            "weights": None
            if regime == "from_scratch"
            else backbone.weights.sha256 or backbone.weights.label,
            "preprocessing": asdict(backbone.preprocessing),
            "pooling": backbone.pooling,
        },
        "metric": dataset.metric,
        "images": {name: images_digest(images, name) for name in images.dataset.splits},
        "validation": [table.validation_fraction, table.seeds[0]] if dataset is not images.dataset else None,
        "training": shown,
    }
    return _Cell(study, regime, table, backbone, images, recipe, dataset, spec)


def with_validation(images: Images, fraction: float, *, seed: int) -> Dataset:
    """Hold a stratified share of train out as validation; groups and identical images stay together."""
    train = images.dataset.splits["train"]
    kept, held = hold_out(
        train.labels, fraction, seed=seed, groups=train.groups, image_sha256=images.image_sha256["train"]
    )
    splits = {
        **images.dataset.splits,
        "train": train.take(kept),
        "validation": train.take(held, "validation"),
    }
    note = f"{len(held)} of {len(train)} training rows held out as validation, stratified, seed {seed}"
    return images.dataset.with_splits(splits, note)


def _plan_cell(cell: _Cell, history: History) -> Iterator[Planned]:
    """Plan the grid points, and the final trainings once a point can be chosen."""
    stage = STAGE_OF_REGIME[cell.regime]
    points = grid(*grid_of(cell.table, cell.regime))
    values: dict[GridPoint, float | None] = {}
    for point in points if len(points) > 1 else ():
        job = cell.job(point, cell.table.seeds[0], final=False)
        state, why = state_of(job, history)
        if state == "done":
            values[point] = history.finished[job.name].result["value"]
        yield Planned(job.name, stage, state, why, job)
    chosen, why_not = _choose(points, values)
    for seed in cell.table.seeds:
        final = cell.job(chosen.point if chosen else points[0], seed, final=True)
        if chosen is None:
            yield Planned(final.name, stage, "waiting", why_not, columns=final.columns)
            continue
        final = replace(final, notes=chosen.warnings)
        state, why = state_of(final, history)
        yield Planned(final.name, stage, state, why, final, final.columns)


def _choose(
    points: tuple[GridPoint, ...], values: Mapping[GridPoint, float | None]
) -> tuple[Selection | None, str]:
    """Choose on validation once the whole grid is done; None and why where that cannot be."""
    if len(points) == 1:
        return Selection(points[0], float("nan")), ""
    if len(values) < len(points):
        return None, f"{len(points) - len(values)} of {len(points)} grid points are left"
    if all(value is None for value in values.values()):
        return None, EVERY_POINT_DIVERGED
    return select(points, [values[point] for point in points]), ""
