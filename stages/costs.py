"""What a forward pass costs, without torch: multiplications, outputs and layers of every known network.

The counts stand in ``backbone_costs.csv``, which ``python -m stages.vision.cost_table`` builds.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stages.backbones import lookup
from stages.errors import BackboneError

COLUMNS = ("architecture", "size", "gmacs", "mega_activations", "layers")


@dataclass(frozen=True)
class ForwardCost:
    """Of one image through one network without its head."""

    size: int
    """Side of the square input, pixels."""
    gmacs: float
    """Multiplications with addition, in 1e9."""
    mega_activations: float
    """Values that convolutions and matrix products put out, in 1e6."""
    layers: int
    """Convolutions and matrix products."""
    counted: bool = True
    """False where the network is not in the table and the figures are guessed from its parameters."""

    def at(self, size: int) -> ForwardCost:
        """Return the cost at another input size: in proportion to the pixels."""
        factor = (size / self.size) ** 2
        return replace(
            self, size=size, gmacs=factor * self.gmacs, mega_activations=factor * self.mega_activations
        )


_UNKNOWN = ForwardCost(224, 4.1, 11.1, 53, counted=False)
"""ResNet-50's, for a network of which nothing is known."""


def architecture_of(name: str) -> str:
    """Return a backbone's name without its tag.

    Examples
    --------
    >>> architecture_of("resnet50.a1_in1k"), architecture_of("torchvision/googlenet")
    ('resnet50', 'torchvision/googlenet')
    """
    return name.partition(".")[0]


def forward_cost(name: str, size: int) -> ForwardCost:
    """Return what one image costs at an input size.

    Parameters
    ----------
    name : str
        As in a study.
    size : int
        Side of the input, pixels.

    Returns
    -------
    ForwardCost
        ``counted`` is False where the network is not in the table (``python:``): ResNet-50's is taken.

    Examples
    --------
    >>> round(forward_cost("resnet18", 224).gmacs, 1)
    1.8
    """
    try:
        sizes = _table().get(architecture_of(lookup(name).builds), {})
    except BackboneError:
        sizes = {}
    if not sizes:
        return _UNKNOWN.at(size)
    nearest = min(sizes, key=lambda known: abs(known - size))
    return sizes[nearest].at(size)


@functools.cache
def _table() -> Mapping[str, Mapping[int, ForwardCost]]:
    """Read the table: architecture -> size -> cost."""
    found: dict[str, dict[int, ForwardCost]] = {}
    path = Path(__file__).with_name("backbone_costs.csv")
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            size = int(row["size"])
            cost = ForwardCost(size, float(row["gmacs"]), float(row["mega_activations"]), int(row["layers"]))
            found.setdefault(row["architecture"], {})[size] = cost
    return found
