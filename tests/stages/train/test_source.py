"""Switches of source-task training, proved on the network and on the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stages.backbones import resolve
from stages.errors import BackboneError
from stages.records import NO_SWITCHES, SourceSwitches, TrainRecipe
from stages.train import train_from_scratch
from stages.train.auxiliary import PLACES, auxiliary_places
from stages.train.job import TrainJob
from stages.train.model import build_classifier, loss_of
from stages.train.optimiser import parameter_groups
from stages.train.step import Stepper
from stages.vision.networks import build_network

HEADS = SourceSwitches(auxiliary_head=True)
NO_SCALE = SourceSwitches(batch_norm_scale=False)
RECIPE = TrainRecipe(steps=2, batch_size=4, image_size=32)


def build(name: str, switches: SourceSwitches, recipe: TrainRecipe = RECIPE, size: int = 64):
    backbone = resolve(name, weights="random", size=size)
    return build_classifier(
        backbone, 3, seed=1, image_size=size, from_scratch=True, recipe=recipe, switches=switches
    )


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_without_scale_every_batch_norm_multiplies_by_one_and_is_not_trained() -> None:
    """Networks that begin some scales at zero would keep whole branches silent."""
    network = build("resnet18", NO_SCALE)
    assert any(float(m.weight.detach().abs().max()) == 0 for m in norms(build("resnet18", NO_SWITCHES)))
    assert all(torch.equal(m.weight, torch.ones_like(m.weight)) for m in norms(network))
    trained = {id(p) for group in parameter_groups(network, 1e-4) for p in group["params"]}
    assert not any(id(m.weight) in trained for m in norms(network))
    assert all(id(m.bias) in trained for m in norms(network))


def test_with_scale_it_is_trained() -> None:
    network = build("resnet18", NO_SWITCHES)
    trained = {id(p) for group in parameter_groups(network, 1e-4) for p in group["params"]}
    assert all(id(m.weight) in trained for m in norms(network))


def test_auxiliary_heads_add_their_losses_by_weight() -> None:
    network = build("torchvision/googlenet", replace(HEADS, auxiliary_weight=0.25)).train()
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    logits = network(images)
    heard = dict(network.auxiliary._heard)
    assert [h.shape[1] for h in heard.values()] == [512, 528]
    torch.manual_seed(0)
    loss = network.loss(logits, labels, 0.1)
    torch.manual_seed(0)
    heads = zip(network.auxiliary.heads, heard.values(), strict=True)
    others = [loss_of(head(features), labels, 0.1) for head, features in heads]
    assert len(others) == 2
    torch.testing.assert_close(loss, loss_of(logits, labels, 0.1) + 0.25 * (others[0] + others[1]))


def test_the_heads_steer_the_layers_before_them_and_not_those_behind() -> None:
    network = build("torchvision/googlenet", HEADS).train()
    network(torch.randn(4, 3, 64, 64))
    sum(logits.sum() for logits in network.auxiliary.logits()).backward()
    body = network.body
    assert body.conv1.conv.weight.grad.abs().sum() > 0
    assert body.inception4d.branch1.conv.weight.grad.abs().sum() > 0
    assert body.inception5b.branch1.conv.weight.grad is None
    assert network.classifier.weight.grad is None


def test_heads_do_not_change_how_the_rest_is_drawn_nor_what_is_scored() -> None:
    plain, headed = build("torchvision/googlenet", NO_SWITCHES), build("torchvision/googlenet", HEADS)
    own = headed.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in plain.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(images), headed.eval()(images))
    assert not headed.auxiliary._heard


@pytest.mark.parametrize("name", PLACES)
def test_every_place_of_a_head_is_in_its_network(name: str) -> None:
    with torch.device("meta"):
        from stages.vision.networks import build_bare

        network, _ = build_bare(name)
    for place in auxiliary_places(name):
        network.get_submodule(place)


def test_a_network_without_heads_says_so() -> None:
    with pytest.raises(BackboneError, match="resnet18 has no auxiliary head: leave auxiliary_head out"):
        build("resnet18", HEADS)


def test_switches_are_part_of_what_a_checkpoint_belongs_to(colours) -> None:
    backbone = resolve("test_resnet.r160_in1k", weights="random", size=32)
    job = TrainJob("from_scratch", backbone, colours, RECIPE, 0.1, 0.0, 0, ("train",), "test")
    assert job.fingerprint() == replace(job, switches=SourceSwitches()).fingerprint()
    assert job.fingerprint() != replace(job, switches=NO_SCALE).fingerprint()


def test_the_stepper_asks_the_network_for_its_loss() -> None:
    """Label smoothing, dropout and heads all enter: the gradient is that of the whole loss."""
    recipe = replace(RECIPE, label_smoothing=0.2)
    network = build("torchvision/googlenet", HEADS, recipe).train()
    stepper = Stepper(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        recipe=recipe,
        preprocessing=resolve("torchvision/googlenet", weights="random", size=64).preprocessing,
        n_train=4,
        device=torch.device("cpu"),
    )
    pixels, labels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    loss = stepper(pixels, labels)
    assert float(loss) > 1.5 * np.log(3)  # the classifier's alone begins near ln 3
    assert all(p.grad is not None for p in network.auxiliary.parameters())


def test_dropout_of_the_recipe_stands_before_both_kinds_of_classifier() -> None:
    network = build("torchvision/googlenet", HEADS, replace(RECIPE, dropout=0.3))
    assert network.dropout.p == 0.3
    assert {head.dropout.p for head in network.auxiliary.heads} == {0.3}


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "torchvision/googlenet"])
def test_weights_that_were_kept_are_a_backbone(name: str, colours, tmp_path) -> None:
    """Scales are ones, nothing of a head is in the file, and it loads like any other."""
    backbone = resolve(name, weights="random", size=32)
    train_from_scratch(
        backbone, colours, RECIPE, learning_rate=0.1, weight_decay=0.0, score_on="test", folder=tmp_path,
        keep_weights=True, switches=NO_SCALE,
    )  # fmt: skip
    file = tmp_path / "weights.safetensors"
    assert not any("auxiliary" in name for name in load_file(file))
    again = build_network(resolve(name, weights=f"file:{file}", size=32))
    assert all(torch.equal(m.weight, torch.ones_like(m.weight)) for m in norms(again))
