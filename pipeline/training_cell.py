"""One backbone on one data set in one regime: what its trainings share, and each of them as a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pipeline.budgets import grid_of, recipe_of
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.jobs import TrainJob
from pipeline.ledger import History
from pipeline.resolve import Images
from pipeline.states import score_columns
from pipeline.tables import TrainTable
from pipeline.training_recipe import train_recipe
from stages.backbones import lookup
from stages.records import WITHOUT_EFFECT, Backbone, Dataset, Regime, SplitName, TrainRecipe
from stages.splitting import hold_out
from stages.train.grid import GridPoint, grid


@dataclass(frozen=True)
class Cell:
    """One backbone on one data set in one regime: all that its jobs share; see `cell_of`."""

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

    @cached_property
    def output(self) -> Path:
        """The study's, whose links are followed once for all jobs."""
        return self.study.output

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
                "recipe": train_recipe(self.backbone.name, decay, decay_everything=recipe.decay_everything),
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
            image_sha256=self.images.by_file,
        )


def cell_of(
    study: Study,
    regime: Regime,
    table: TrainTable,
    backbone: Backbone,
    images: Images,
    history: History,
    suffix: str,
) -> Cell:
    """Gather what the jobs of one cell share.

    Parameters
    ----------
    history : History
        Names weights that are not at hand as the results there name them.
    suffix : str
        Put behind the data set's name in the jobs' names.

    Raises
    ------
    StudyError
        This backbone or data set cannot be trained with these settings.
    """
    recipe = recipe_of(table, regime)
    dataset = images.dataset
    _check_fit(regime, table, backbone, dataset)
    needs_validation = len(grid(*grid_of(table, regime))) > 1  # numbers named twice are one point
    if needs_validation and "validation" not in dataset.splits:
        dataset = with_validation(images, table.validation_fraction, seed=table.seeds[0])
    shown = {k: v for k, v in asdict(recipe).items() if k not in WITHOUT_EFFECT}
    spec = {
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
        "images": images.digests,
        "validation": [table.validation_fraction, table.seeds[0]] if dataset is not images.dataset else None,
        "training": shown,
    }
    return Cell(study, regime, table, backbone, images, recipe, dataset, spec, suffix)


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


@lru_cache(maxsize=32)
def with_validation(images: Images, fraction: float, *, seed: int) -> Dataset:
    """Hold a stratified share of train out as validation; groups and identical images stay together.

    Every backbone has the same, so it is made once.
    """
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
