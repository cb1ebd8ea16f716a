"""A training job as asked for: one grid point of one regime, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.backbones import lookup
from stages.errors import BackboneError, DatasetError, InputError
from stages.records import (
    NO_SWITCHES,
    WITHOUT_EFFECT,
    Backbone,
    Dataset,
    Preprocessing,
    Regime,
    SourceSwitches,
    SplitName,
    TrainRecipe,
)
from stages.vision.devices import PRECISIONS

_CROPS = ("whole", "central_87.5", "simclr")


@dataclass(frozen=True)
class TrainJob:
    """What is trained, on what, how, and scored on what."""

    regime: Regime
    backbone: Backbone
    dataset: Dataset
    recipe: TrainRecipe
    learning_rate: float
    """Peak of the schedule."""
    weight_decay: float
    """The grid's c."""
    seed: int
    fit_on: tuple[SplitName, ...]
    score_on: SplitName
    switches: SourceSwitches = NO_SWITCHES
    """Of training on a source task."""
    image_sha256: Mapping[Path, str] = field(default_factory=dict)
    """Of image files whose bytes are known; others than these are not trained on."""

    def __post_init__(self) -> None:
        recipe = self.recipe
        numbers = (recipe.steps, recipe.batch_size, recipe.micro_batch_size or 1, self.preprocessing.size)
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "must be positive")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "must not be negative")
        ratio = self.weight_decay / self.learning_rate
        _require(ratio < 1e38, "weight_decay / learning_rate", ratio, "is no finite number")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "must lie in [0, 2^63)")
        _require(
            min(numbers) > 0, "steps, batch_size, micro_batch_size, image_size", numbers, "must be positive"
        )
        _require(0 <= recipe.momentum < 1, "momentum", recipe.momentum, "must lie in [0, 1)")
        if recipe.batch_norm_momentum is not None:
            momentum = recipe.batch_norm_momentum
            _require(0 < momentum <= 1, "batch_norm_momentum", momentum, "must lie in (0, 1]")
        _require(0 <= recipe.dropout < 1, "dropout", recipe.dropout, "must lie in [0, 1)")
        smoothing = recipe.label_smoothing
        _require(0 <= smoothing < 1, "label_smoothing", smoothing, "must lie in [0, 1)")
        _require(
            not (smoothing and self.dataset.multi_label),
            "label_smoothing",
            smoothing,
            f"means nothing for the multi-label set {self.dataset.name}: leave it out",
        )
        _require(recipe.classifier_std >= 0, "classifier_std", recipe.classifier_std, "must not be negative")
        _require(
            0 < recipe.crop_scale[0] <= recipe.crop_scale[1] <= 1, "crop_scale", recipe.crop_scale, "no range"
        )
        _require(
            0 < recipe.crop_ratio[0] <= recipe.crop_ratio[1], "crop_ratio", recipe.crop_ratio, "no range"
        )
        weight = self.switches.auxiliary_weight
        _require(weight >= 0, "auxiliary_weight", weight, "must not be negative")
        _require(recipe.precision in PRECISIONS, "precision", recipe.precision, "is unknown")
        _require(recipe.evaluation_crop in _CROPS, "evaluation_crop", recipe.evaluation_crop, "is unknown")
        self._check_splits()
        facts = lookup(self.backbone.name)
        if facts.fixed_size and self.preprocessing.size != facts.size:
            raise BackboneError(
                f"{facts.name} takes inputs of {facts.size} pixels only, not {self.preprocessing.size}: "
                "leave image_size out"
            )

    def _check_splits(self) -> None:
        """Refuse splits that are missing, empty, or trained on twice."""
        _require(bool(self.fit_on), "fit_on", self.fit_on, "must name a split")
        _require(len(set(self.fit_on)) == len(self.fit_on), "fit_on", self.fit_on, "names a split twice")
        _require(self.score_on not in self.fit_on, "score_on", self.score_on, "is trained on: choose another")
        for name in (*self.fit_on, self.score_on):
            if name not in self.dataset.splits or not len(self.dataset.splits[name]):
                raise DatasetError(f"{self.dataset.name} has no images in the split {name!r}: choose another")

    @property
    def preprocessing(self) -> Preprocessing:
        """The backbone's, at the size trained at."""
        facts = self.backbone.preprocessing
        return replace(facts, size=facts.size if self.recipe.image_size is None else self.recipe.image_size)

    def training_labels(self) -> NDArray[Any]:
        """Return the labels trained on, split after split."""
        return np.concatenate([self.dataset.splits[name].labels for name in self.fit_on])

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader must know before the first step."""
        labels = self.training_labels()
        names = self.dataset.class_names
        present = (
            (labels == 1).any(axis=0)
            if self.dataset.multi_label
            else np.bincount(labels, minlength=len(names))
        )
        absent = [name for name, there in zip(names, present, strict=True) if not there]
        if not absent:
            return ()
        return (f"{len(absent)} classes without a training image, the first is {absent[0]!r}",)

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that decides the trained weights."""
        backbone, recipe = self.backbone, asdict(self.recipe)
        data = hashlib.sha256()
        for name in self.fit_on:
            split = self.dataset.splits[name]
            data.update(json.dumps([name, split.ids, split.labels.tolist()]).encode())
        facts = {
            "regime": self.regime,
            "backbone": [backbone.name, backbone.weights.label, backbone.weights.sha256, backbone.pooling],
            "preprocessing": asdict(self.preprocessing),
            "recipe": {k: v for k, v in recipe.items() if k not in WITHOUT_EFFECT},
            "point": [self.learning_rate, self.weight_decay, self.seed],
            "classes": [self.dataset.class_names, self.dataset.multi_label],
            "data": data.hexdigest(),
        }
        if self.switches != NO_SWITCHES:  # others keep the fingerprint that their checkpoints have
            facts["switches"] = asdict(self.switches)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _require(condition: bool, name: str, value: object, problem: str) -> None:
    """Refuse a value that is out of range."""
    if not condition:
        raise InputError(f"{name} {value!r} {problem}")
