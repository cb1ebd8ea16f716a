"""The human coordinates under which a study's features are found."""

from __future__ import annotations

from pipeline.config import Study
from pipeline.pins import Spot
from pipeline.resolve import resolve
from stages.extract.recipe import coordinates
from stages.records import SPLITS, Backbone, SplitName


def wanted_coordinates(study: Study, backbone: Backbone, dataset: str, split: SplitName) -> dict[str, str]:
    """Return what a split's features are found by; imported ones by their names alone."""
    if backbone.weights.kind == "cached":
        return {"backbone": backbone.label, "dataset": dataset, "split": split}
    return coordinates(backbone, dataset, split, precision=study.extract.precision)


def wanted_of_study(study: Study) -> dict[Spot, dict[str, str]]:
    """Return the coordinates of all features that a study needs, whatever is on this machine."""
    return {
        (backbone.label, table.name, split): wanted_coordinates(study, backbone, table.name, split)
        for backbone in resolve(study, need_images=False).backbones
        for table in study.dataset
        for split in SPLITS
    }
