"""Planning of stage three's training jobs: the grid, the choice on validation, the final trainings.

The grid is run with the first seed on train and scored on validation; the chosen point is trained again
on train + validation, once a seed, and scored on test once (protocol, "Fine-tuning"). A grid of one point
leaves nothing to choose, so only the final trainings are run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from stages.backbones import lookup
from stages.records import WITHOUT_EFFECT, Backbone, Dataset, Regime, SplitName, TrainRecipe
from stages.splitting import hold_out
from stages.train.grid import GridPoint, Rung, Selection, grid, promote, rungs, select

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
    suffix: str = ""
    """Tells the cells of the other experiments from the study's own."""
    refit: bool = True
    """Whether the final trainings see validation too."""

    @property
    def prefix(self) -> str:
        """What the names of its jobs begin with."""
        return f"{self.regime}/{self.backbone.label}/{self.dataset.name}{self.suffix}"

    def job(self, point: GridPoint, seed: int, *, final: bool, steps: int | None = None) -> TrainJob:
        """Return the job of one grid point; ``steps``: a schedule of that length, where it is a shorter one."""
        rate, decay = point.learning_rate, point.weight_decay
        short = steps is not None and steps != self.recipe.steps
        recipe = replace(self.recipe, steps=steps) if short and steps is not None else self.recipe
        fit_on: tuple[SplitName, ...] = ("train",)
        if final and self.refit and "validation" in self.dataset.splits:
            fit_on = ("train", "validation")
        score_on: SplitName = "test" if final else "validation"
        what = f"final,seed={seed}" if final else f"lr={rate!r},wd={decay!r},seed={seed}"
        what += f",steps={steps}" if short else ""
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
            recipe=recipe,
            learning_rate=rate,
            weight_decay=decay,
            seed=seed,
            fit_on=fit_on,
            score_on=score_on,
            spec={
                **self.base_spec,
                "training": {**self.base_spec["training"], "steps": recipe.steps},
                "learning_rate": rate,
                "weight_decay": decay,
                "seed": seed,
                "fit_on": list(fit_on),
                "score_on": score_on,
            },
            columns=columns,
            checkpoint_minutes=self.table.checkpoint_minutes,
            keep_weights=final and self.table.keep_weights,
            jobs_per_device=self.table.jobs_per_device,
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
                yield from plan_cell(study, regime, table, backbone, images, history)
                continue
            yield from plan_without_images(study, regime, table, backbone, entry.name, resolved, history)


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
    cell = _cell(study, regime, table, backbone, images, history, suffix)
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


def _cell(
    study: Study,
    regime: Regime,
    table: TrainTable,
    backbone: Backbone,
    images: Images,
    history: History,
    suffix: str,
) -> _Cell:
    """Gather what the jobs of one cell share."""
    learning_rates, weight_decays = grid_of(table, regime)
    recipe = recipe_of(table, regime)
    dataset = images.dataset
    _check_fit(regime, table, backbone, dataset)
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
            else backbone.weights.sha256
            or _weights_of(f"{regime}/{backbone.label}/{dataset.name}{suffix}/", backbone, history),
            "preprocessing": asdict(backbone.preprocessing),
            "pooling": backbone.pooling,
        },
        "metric": dataset.metric,
        "images": {name: images_digest(images, name) for name in images.dataset.splits},
        "validation": [table.validation_fraction, table.seeds[0]] if dataset is not images.dataset else None,
        "training": shown,
    }
    return _Cell(study, regime, table, backbone, images, recipe, dataset, spec, suffix)


def _check_fit(regime: Regime, table: TrainTable, backbone: Backbone, dataset: Dataset) -> None:
    """Refuse settings that this backbone or this data set cannot be trained with."""
    facts = lookup(backbone.name)
    if facts.fixed_size and table.image_size not in (None, facts.size):
        raise StudyError(
            f"{regime}.image_size {table.image_size}: {facts.name} takes inputs of {facts.size} pixels only; "
            "leave image_size out"
        )
    if table.label_smoothing and dataset.multi_label:
        raise StudyError(
            f"{regime}.label_smoothing {table.label_smoothing:g} means nothing for the multi-label set "
            f"{dataset.name!r}: leave it out, or put that set into a study of its own"
        )


def _weights_of(prefix: str, backbone: Backbone, history: History) -> str:
    """Name weights that are not on this machine, or not built yet, as the results there are name them.

    Else a cell that was trained elsewhere, or by a command that built the network, would look stale to one
    that cannot tell (`penultimate status`, `penultimate join`).
    """
    there = [record for name, record in history.finished.items() if name.startswith(prefix)]
    used = {str(record.spec["backbone"]["weights"]) for record in there}
    labels = {record.columns["weights"] for record in there if record.columns}
    return used.pop() if len(used) == 1 and labels <= {backbone.weights.label} else backbone.weights.label


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
    if not len(held):
        raise StudyError(
            f"{images.dataset.name}: no class has a training image to spare as validation, to choose the grid "
            "point on: add images or a validation split, or name one learning rate and one weight decay"
        )
    note = f"{len(held)} of {len(train)} training rows held out as validation, stratified, seed {seed}"
    return images.dataset.with_splits(splits, note)


def _plan_cell(cell: _Cell, history: History) -> Iterator[Planned]:
    """Plan the search, and the final trainings once a point can be chosen."""
    stage = STAGE_OF_REGIME[cell.regime]
    points = grid(*grid_of(cell.table, cell.regime))
    search = _Search(cell, points, history)
    if len(points) > 1:
        yield from search.planned()
    chosen, why_not = search.choice()
    for seed in cell.table.seeds:
        final = cell.job(chosen.point if chosen else points[0], seed, final=True)
        if chosen is None:
            yield Planned(final.name, stage, "waiting", why_not, columns=final.columns)
            continue
        final = replace(final, notes=chosen.warnings)
        state, why = state_of(final, history)
        yield Planned(final.name, stage, state, why, final, final.columns)


class _Search:
    """The choice of a grid point on validation: the whole grid at full length, or successive halving."""

    def __init__(self, cell: _Cell, points: Sequence[GridPoint], history: History) -> None:
        self._cell, self._history = cell, history
        self._points = self._survivors = tuple(points)
        self._values: dict[GridPoint, float | None] = {}
        self._rungs: tuple[Rung, ...] = (Rung(len(points), cell.recipe.steps),)
        if cell.table.search == "halving":
            self._rungs = rungs(len(points), cell.recipe.steps, cell.table.halving_factor)
        self._place = 0

    def planned(self) -> Iterator[Planned]:
        """Plan rung after rung, up to the first one that is not done."""
        for place, rung in enumerate(self._rungs):
            self._place = place
            if place:
                values = [self._values[point] for point in self._survivors]
                self._survivors = promote(self._survivors, values, rung.points)
            self._values = {}
            for point in self._survivors:
                yield self._plan_point(point, rung)
            if len(self._values) < len(self._survivors):
                return

    def _plan_point(self, point: GridPoint, rung: Rung) -> Planned:
        """Plan one training and take its value where it is done."""
        job = self._cell.job(point, self._cell.table.seeds[0], final=False, steps=rung.steps)
        state, why = state_of(job, self._history)
        if state == "done":
            self._values[point] = self._history.finished[job.name].result["value"]
        return Planned(job.name, STAGE_OF_REGIME[self._cell.regime], state, why, job)

    def choice(self) -> tuple[Selection | None, str]:
        """Return what was chosen; None and why where that cannot be yet."""
        if len(self._points) == 1:
            return Selection(self._points[0], float("nan")), ""
        left = len(self._survivors) - len(self._values)
        if left:
            where = f"rung {self._place + 1} of {len(self._rungs)}: " if len(self._rungs) > 1 else ""
            return None, f"{where}{left} of {len(self._survivors)} grid points are left"
        if all(value is None for value in self._values.values()):
            return None, EVERY_POINT_DIVERGED
        values = [self._values[point] for point in self._survivors]
        chosen = select(self._survivors, values, of=self._points)
        return replace(chosen, warnings=(*self._told(), *chosen.warnings)), ""

    def _told(self) -> Iterator[str]:
        """Say what successive halving did, for the record and the report."""
        if len(self._rungs) > 1:
            rounds = ", ".join(f"{rung.points} for {rung.steps} steps" for rung in self._rungs)
            yield f"chosen by successive halving: {rounds}"
