"""The classifier that weights bring along: source classes from cached features as from the images themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models import create_model
from torch import Tensor

from stages.backbones import resolve
from stages.errors import WeightsError
from stages.vision.networks import build_network
from stages.vision.source_head import source_head


def published(name: str) -> Any:
    """A network with its classifier, as published: timm's or torchvision's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name.startswith("torchvision/"):
            import torchvision

            kind = name.removeprefix("torchvision/")
            options = {"init_weights": True, "transform_input": True} if kind == "googlenet" else {}
            return torchvision.models.get_model(kind, weights=None, **options).eval()
        return create_model(name).eval()


def images(side: int) -> Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet.r160_in1k",
        "test_vit.r160_in1k",
        "mobilenetv3_small_050.lamb_in1k",
        "convnext_atto",
        "torchvision/mobilenet_v3_small",
        "torchvision/googlenet",
    ],
)
def test_source_classes_of_features_are_those_of_the_images(name: str, tmp_path: Path) -> None:
    whole, path = published(name), tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), path)
    backbone = resolve(name, weights=f"file:{path}")
    batch = images(backbone.preprocessing.size)
    with torch.inference_mode():
        expected = whole(batch).softmax(dim=1).numpy()
        features = build_network(backbone)(batch).numpy()
    got = source_head(backbone).probabilities(features, rows=2)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_a_file_without_its_classifier_has_no_source_classes(tmp_path: Path) -> None:
    """Features can be had from it all the same."""
    state = create_model("test_resnet.r160_in1k").state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "bare.safetensors")
    backbone = resolve("test_resnet.r160_in1k", weights=f"file:{tmp_path / 'bare.safetensors'}")
    build_network(backbone)
    with pytest.raises(WeightsError, match=r"2 missing \(fc.weight, fc.bias\)"):
        source_head(backbone)


def test_random_weights_know_no_source_classes() -> None:
    with pytest.raises(WeightsError, match="without source classes"):
        source_head(resolve("test_resnet.r160_in1k", weights="random"))


def test_a_classifier_of_convolutions_is_told(tmp_path: Path) -> None:
    whole, path = published("torchvision/squeezenet1_1"), tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), path)
    with pytest.raises(WeightsError, match="does not read the penultimate features alone"):
        source_head(resolve("torchvision/squeezenet1_1", weights=f"file:{path}"))
