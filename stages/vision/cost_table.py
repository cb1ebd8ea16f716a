"""Build the table of what a forward pass costs (``stages/backbone_costs.csv``).

::

    python -m stages.vision.cost_table --output stages/backbone_costs.csv

Every network of ``backbones.csv`` is run once on the meta device, where shapes are worked out and nothing is
computed: torch counts the multiplications of convolutions, matrix products and attention, and hooks count
what the layers put out. One row an architecture and input size.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages.backbones import known, lookup
from stages.costs import COLUMNS, ForwardCost, architecture_of
from stages.errors import BackboneError
from stages.vision.networks import build_bare

_log = logging.getLogger(__name__)

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Whose outputs are counted; norms and activation functions are as large as what they follow."""


def measure(network: nn.Module, size: int) -> ForwardCost:
    """Count what one image costs.

    Parameters
    ----------
    network : torch.nn.Module
        On the meta device.
    size : int
        Side of the square input, pixels.

    Returns
    -------
    ForwardCost
        Of one image.
    """
    outputs: list[int] = []

    def count(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        outputs.append(output.numel())

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, _LAYERS)]
    network.eval().requires_grad_(False)  # the counter follows gradients, which there are none of
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(2, 3, size, size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return ForwardCost(
        size=size,
        gmacs=counter.get_total_flops() / 2 / 2 / 1e9,  # of two images, two operations a multiplication
        mega_activations=sum(outputs) / 2 / 1e6,
        layers=len(outputs),
    )


def rows(names: list[str]) -> Iterator[dict[str, str]]:
    """Yield one row for every architecture and size among some names; what cannot be counted is left out."""
    seen: set[tuple[str, int]] = set()
    for name in names:
        place = architecture_of(name), lookup(name).size
        if place in seen:
            continue
        seen.add(place)
        try:
            cost = measure(_on_meta(name), place[1])
        except (
            RuntimeError,
            NotImplementedError,
            TypeError,
            ValueError,
            AssertionError,
            BackboneError,
        ) as problem:
            _log.info("%s at %d is left out: %s", *place, problem)
            continue
        yield {
            "architecture": place[0],
            "size": str(place[1]),
            "gmacs": f"{cost.gmacs:.4g}",
            "mega_activations": f"{cost.mega_activations:.4g}",
            "layers": str(cost.layers),
        }


def _on_meta(name: str) -> nn.Module:
    """Build a network without values where it can be built so."""
    try:
        with torch.device("meta"):
            return build_bare(name)[0]
    except NotImplementedError:  # it computes its widths with tensors, which meta has no values for
        return build_bare(name)[0].to("meta")


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Build the table of what a forward pass costs.")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("timm").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        names = sorted({lookup(name).builds for name in known()})
        for row in sorted(rows(names), key=lambda row: (row["architecture"], int(row["size"]))):
            writer.writerow(row)


if __name__ == "__main__":
    main()
