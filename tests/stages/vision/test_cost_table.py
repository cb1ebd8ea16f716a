"""The table of what forward passes cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.backbones import lookup
from stages.costs import forward_cost
from stages.vision.cost_table import measure, rows


def test_a_network_that_can_be_counted_by_hand() -> None:
    with torch.device("meta"):
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip
    cost = measure(network, 32)
    pixels = 16 * 16
    assert cost.gmacs * 1e9 == pytest.approx(pixels * 8 * 27 + pixels * 8 * 9 + 8 * 5)
    assert cost.mega_activations * 1e6 == pytest.approx(2 * pixels * 8 + 5)
    assert cost.layers == 3


@pytest.mark.parametrize(
    "name",
    ["resnet18", "vit_tiny_patch16_224", "torchvision/regnet_y_400mf", "cait_xxs24_224", "bn_inception"],
)
def test_the_table_is_what_the_program_writes(name: str) -> None:
    facts = lookup(name)
    (row,) = rows([facts.name])
    known = forward_cost(name, facts.size)
    assert known.counted
    assert float(row["gmacs"]) == pytest.approx(known.gmacs)
    assert float(row["mega_activations"]) == pytest.approx(known.mega_activations)
    assert int(row["layers"]) == known.layers


def test_another_size_costs_in_proportion_to_its_pixels() -> None:
    half, whole = forward_cost("resnet18", 112), forward_cost("resnet18", 224)
    assert whole.gmacs == pytest.approx(4 * half.gmacs, rel=1e-3)
    assert whole.layers == half.layers
