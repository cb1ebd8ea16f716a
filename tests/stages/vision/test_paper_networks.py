"""The paper's sixteen networks by name: the paper's sizes to the last parameter, whatever builds them."""

from __future__ import annotations

import pytest
import torch

from stages.backbones import known, lookup, resolve
from stages.errors import BackboneError
from stages.paper_backbones import PAPER_BACKBONES, built_name, paper_names
from stages.vision.backbone_table import measure
from stages.vision.networks import build_bare, build_network

SIZES = {
    # Parameters without classifier, feature dimension, input size. The first column is what the paper's text,
    # torchvision and timm agree on; of the two networks in neither, the published totals less the classifier.
    "inception_v1": (5_599_904, 1024, 224),
    "bn_inception": (11_295_240 - 1024 * 1000 - 1000, 1024, 224),
    "inception_v3": (21_785_568, 2048, 299),
    "inception_v4": (41_142_816, 1536, 299),
    "inception_resnet_v2": (54_306_464, 1536, 299),
    "resnet_50": (23_508_032, 2048, 224),
    "resnet_101": (42_500_160, 2048, 224),
    "resnet_152": (58_143_808, 2048, 224),
    "densenet_121": (6_953_856, 1024, 224),
    "densenet_169": (12_484_480, 1664, 224),
    "densenet_201": (18_092_928, 1920, 224),
    "mobilenet_v1": (3_206_976, 1024, 224),
    "mobilenet_v2": (2_223_872, 1280, 224),
    "mobilenet_v2_140": (4_315_776, 1792, 224),
    "nasnet_a_mobile": (5_289_978 - 1056 * 1000 - 1000, 1056, 224),
    "nasnet_a_large": (84_720_150, 4032, 331),
}
NORMALISED_AS_IMAGENET = {"inception_v1", "mobilenet_v2", "mobilenet_v2_140"} | {
    name for name in SIZES if name.startswith(("resnet", "densenet"))
}


def test_there_are_sixteen() -> None:
    assert set(PAPER_BACKBONES) == set(SIZES)
    assert set(paper_names()) <= set(known())


@pytest.mark.parametrize("name", SIZES)
def test_the_network_that_is_built_has_the_papers_size(name: str) -> None:
    """On the meta device: shapes and counts without the arithmetic."""
    parameters, dimension, size = SIZES[name]
    facts = lookup(f"paper:{name}")
    assert (facts.parameters, facts.dimension, facts.size) == (parameters, dimension, size)
    with torch.device("meta"):
        network, heads = build_bare(f"paper:{name}")
    assert measure(network, size) == (dimension, parameters)
    assert heads


@pytest.mark.parametrize("name", SIZES)
def test_a_name_stands_for_one_public_checkpoint_and_its_preprocessing(name: str) -> None:
    facts, public = lookup(f"paper:{name}"), lookup(PAPER_BACKBONES[name].builds)
    assert facts.builds == public.name == built_name(f"paper:{name}")
    assert (facts.source, facts.mean, facts.std, facts.imagenet_top1) == (
        public.source, public.mean, public.std, public.imagenet_top1,
    )  # fmt: skip
    assert facts.source
    expected = (0.485, 0.456, 0.406) if name in NORMALISED_AS_IMAGENET else (0.5, 0.5, 0.5)
    assert facts.mean == (
        expected if name != "bn_inception" else pytest.approx((128 / 255, 117 / 255, 104 / 255), abs=1e-6)
    )
    # The public checkpoints are no more than a few points from the paper's own, whose training was another.
    assert facts.imagenet_top1 == pytest.approx(PAPER_BACKBONES[name].paper_top1, abs=0.045)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_network_runs_at_its_size(name: str) -> None:
    backbone = resolve(f"paper:{name}", weights="random", seed=1)
    network = build_network(backbone)
    with torch.inference_mode():
        features = network(torch.rand(1, 3, SIZES[name][2], SIZES[name][2]))
    assert features.shape == (1, SIZES[name][1])
    assert torch.isfinite(features).all()
    assert backbone.name == backbone.label == f"paper:{name}"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("paper:inceptionv4", "paper:inception_v4"),
        ("paper:ResNet-50", "paper:resnet_50"),
        ("paper:vgg", "penultimate backbones paper"),
        ("papper:inception_v4", "paper:inception_v4"),
    ],
)
def test_a_name_that_is_none_of_the_sixteen_offers_the_nearest(wrong: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        lookup(wrong)


def test_what_torchvision_builds_has_no_choice_of_pooling() -> None:
    with pytest.raises(BackboneError, match="timm networks only"):
        resolve("paper:inception_v1", weights="random", pooling="max")
    assert resolve("paper:resnet_50", weights="random", pooling="max").pooling == "max"
