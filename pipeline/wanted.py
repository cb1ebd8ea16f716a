"""The human coordinates under which a study's features are found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.config import Study
from pipeline.pins import Spot
from pipeline.resolve import resolve
from stages.extract.recipe import coordinates
from stages.records import SPLITS, Backbone, SplitName


@dataclass(frozen=True)
class Wanted:
    """What a study asks of an entry's coordinates."""

    facts: Mapping[str, str]
    """That they have to say; backbone, dataset and split are always among them."""
    size: int | None = None
    """Of the input in pixels, where the study says it of a backbone without a network: entries that tell none have
    it."""

    def met_by(self, there: Mapping[str, object]) -> bool:
        """Whether an entry with these coordinates is one that is wanted."""
        return self.facts.items() <= there.items() and not self._other_size(there)

    def apart(self, there: Mapping[str, object], passed_over: Collection[str] = ()) -> list[str]:
        """Say in which coordinates an entry is another one; those passed over are not compared."""
        other = [
            f"{name} {there.get(name)!r}, not {value!r}"
            for name, value in self.facts.items()
            if there.get(name) != value and name not in passed_over
        ]
        if self._other_size(there):
            other.append(f"preprocessing {there['preprocessing']!r}, not of size {self.size}")
        return other

    def _other_size(self, there: Mapping[str, object]) -> bool:
        """Whether coordinates tell of another size."""
        told = str(there.get("preprocessing", "")).partition(" ")[0]
        return self.size is not None and told.isdecimal() and int(told) != self.size


def wanted_coordinates(study: Study, backbone: Backbone, dataset: str, split: SplitName) -> Wanted:
    """Return what a split's features are found by; imported ones by their names, and the size that the study says."""
    if backbone.weights.kind == "cached":
        facts = {"backbone": backbone.label, "dataset": dataset, "split": split}
        return Wanted(facts, backbone.preprocessing.size or None)
    return Wanted(coordinates(backbone, dataset, split, precision=study.extract.precision))


def wanted_of_study(study: Study) -> dict[Spot, Wanted]:
    """Return the coordinates of all features that a study needs, whatever is on this machine."""
    return {
        (backbone.label, table.name, split): wanted_coordinates(study, backbone, table.name, split)
        for backbone in resolve(study, need_images=False).backbones
        for table in study.dataset
        for split in SPLITS
    }
