"""The protocol against independent computations: optimiser, schedule, momentum, losses, order."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import create_model
from torch import nn

from stages.records import Preprocessing, TrainRecipe
from stages.train.augment import DRAWS
from stages.train.curve import is_recorded
from stages.train.model import Classifier, loss_of
from stages.train.optimiser import (
    batch_norm_momentum,
    build_optimiser,
    cosine,
    parameter_groups,
    set_batch_norm_momentum,
    set_learning_rate,
    switch_off_dropout,
)
from stages.train.order import draws_of_step, rows_of_step
from stages.train.step import Stepper, pays_to_compile

FACTS = Preprocessing(24, "bilinear", "whole", 0.875, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
CPU = torch.device("cpu")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def stepper_for(
    network: nn.Module, recipe: TrainRecipe, *, rate: float = 0.1, c: float = 0.01, n: int = 64
) -> Stepper:
    optimiser = build_optimiser(network, learning_rate=rate, weight_decay=c, momentum=recipe.momentum)
    return Stepper(network, optimiser, recipe=recipe, preprocessing=FACTS, n_train=n, device=CPU)


def batch(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 24, 24), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, 3, (n,), generator=generator)


def test_steps_equal_hand_written_nesterov_with_decay_divided_by_the_rate() -> None:
    """v <- 0.9 v + g + (c / lr) w on weights only; w <- w - lr_t (g + (c / lr) w + 0.9 v)."""
    peak, c, steps, mu = 0.2, 0.03, 5, 0.9
    ours, theirs = small(), small()
    theirs[1].momentum = batch_norm_momentum(64, 8)
    stepper = stepper_for(ours, TrainRecipe(steps=steps, batch_size=8), rate=peak, c=c)
    velocity = {name: torch.zeros_like(p) for name, p in theirs.named_parameters()}
    mean, std = torch.tensor(FACTS.mean).view(3, 1, 1), torch.tensor(FACTS.std).view(3, 1, 1)
    ours.train()
    theirs.train()
    for step in range(steps):
        images, labels = batch(8, step)
        rate = peak * (1 + math.cos(math.pi * step / steps)) / 2
        set_learning_rate(stepper.optimiser, rate)
        loss = stepper(images, labels)
        logits = theirs((images / 255 - mean) / std)
        expected = -logits.log_softmax(1)[torch.arange(8), labels].mean()
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
        gradients = torch.autograd.grad(expected, list(theirs.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(theirs.named_parameters(), gradients, strict=True):
                decayed = name in ("0.weight", "5.weight")
                g = gradient + (c / peak) * p if decayed else gradient
                velocity[name] = mu * velocity[name] + g
                p -= rate * (g + mu * velocity[name])
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("steps", "peak"), [(1, 0.1), (10, 0.3), (20_000, 1.0)])
def test_the_learning_rate_falls_along_half_a_cosine_to_zero(steps: int, peak: float) -> None:
    network = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(network.parameters(), lr=peak)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps, eta_min=0)
    for step in range(min(steps, 300)):
        assert cosine(step, steps, peak) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimiser.step()
        reference.step()
    assert cosine(steps, steps, peak) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("s", [1, 3.9, 50, 99.9, 100, 101, 200, 296, 10_000])
def test_batch_norm_momentum_is_tensorflows_rule(s: float) -> None:
    tensorflow = max(1 - 10 / s, 0.9)
    assert batch_norm_momentum(round(s * 1000), 1000) == pytest.approx(1 - tensorflow, rel=1e-9)


@given(st.integers(1, 10**6), st.integers(1, 512), st.integers(1, 64))
def test_micro_batches_forget_as_much_as_one_batch(n: int, batch_size: int, k: int) -> None:
    whole, part = batch_norm_momentum(n, batch_size), batch_norm_momentum(n, batch_size, k)
    assert (1 - part) ** k == pytest.approx(1 - whole, rel=1e-9)


def test_every_batch_norm_gets_the_momentum() -> None:
    network = create_model("mobilenetv3_small_050")
    set_batch_norm_momentum(network, 0.037)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 20
    assert {m.momentum for m in norms} == {0.037}


@pytest.mark.parametrize(
    "name", ["resnet10t", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto"]
)
def test_weights_of_convolutions_and_linear_layers_decay_and_nothing_else(name: str) -> None:
    with torch.device("meta"):
        network = create_model(name, num_classes=5)
    names = {id(p): n for n, p in network.named_parameters()}
    decayed, rest = parameter_groups(network, 0.5)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)
    expected = {
        n
        for n, p in network.named_parameters()
        if n.endswith(".weight") and p.ndim >= 2 and "embed" not in n.rsplit(".", 1)[0].rsplit(".", 1)[-1]
    }
    got = {names[id(p)] for p in decayed["params"]}
    assert got == expected | {n for n in got if n == "patch_embed.proj.weight"}
    assert not [n for n in got if "bias" in n or "pos_embed" in n or "cls_token" in n or "gamma" in n]
    assert got | {names[id(p)] for p in rest["params"]} == set(names.values())
    assert not got & {names[id(p)] for p in rest["params"]}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "tf_efficientnet_b0"])
def test_dropout_and_drop_path_are_off(name: str) -> None:
    network = create_model(name, num_classes=0, drop_rate=0.3, drop_path_rate=0.3)
    network.train()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.manual_seed(0)
        wild = network(images)
        switch_off_dropout(network)
        torch.manual_seed(0)
        first = network(images)
        torch.manual_seed(1)
        second = network(images)
    assert not torch.equal(wild, first)
    assert torch.equal(first, second)


@pytest.mark.parametrize("micro", [1, 3, 4, 5, 8])
def test_gradients_do_not_depend_on_the_micro_batch(micro: int) -> None:
    """Without batch norm, whose statistics are per micro-batch; 11 images cut into uneven pieces too."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    images, labels = batch(11)
    gradients = []
    for size in (None, micro):
        copied = copy.deepcopy(network)
        recipe = TrainRecipe(steps=1, batch_size=11, micro_batch_size=size)
        stepper = stepper_for(copied, recipe, c=0.0)
        stepper(images, labels)
        gradients.append([p.grad.clone() for p in copied.parameters() if p.grad is not None])
    assert stepper.micro_batches == math.ceil(11 / micro)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_step() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    images, labels = batch(8)
    states = []
    for choice in ("never", "always"):
        copied = copy.deepcopy(network)
        stepper = stepper_for(copied, TrainRecipe(steps=1, batch_size=8, compile=choice), c=0.0)
        assert stepper.compiled == (choice == "always")
        stepper(images, labels)
        stepper(images, labels)
        states.append(copied.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("choice", "steps", "device", "wanted"),
    [
        ("auto", 20_000, "cuda", True),
        ("auto", 500, "cuda", False),
        ("auto", 20_000, "cpu", False),
        ("always", 1, "cpu", True),
        ("never", 20_000, "cuda", False),
    ],
)
def test_when_a_network_is_compiled(choice: str, steps: int, device: str, wanted: bool) -> None:
    recipe = TrainRecipe(steps=steps, compile=choice)
    assert pays_to_compile(recipe, torch.device(device)) == wanted


def test_the_loss_of_single_labels_is_the_mean_cross_entropy() -> None:
    logits, labels = (
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 1, 0]),
    )
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    assert float(loss_of(logits, labels)) == pytest.approx(
        -float(p[torch.arange(5), labels].log().mean()), rel=1e-6
    )


def test_the_loss_of_multi_labels_is_summed_over_labels_without_the_ignored() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[1, 0, -1], [0, 0, 1], [-1, -1, -1], [1, 1, 0]], dtype=torch.int8)
    total = 0.0
    for row, marks in zip(logits.tolist(), labels.tolist(), strict=True):
        for z, y in zip(row, marks, strict=True):
            if y >= 0:
                q = 1 / (1 + math.exp(-z))
                total -= math.log(q if y else 1 - q)
    assert float(loss_of(logits, labels)) == pytest.approx(total / 4, rel=1e-9)
    logits.requires_grad_()
    loss_of(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[labels == -1] == 0).all()
    assert (logits.grad[labels != -1] != 0).all()


def test_the_new_classifier_is_drawn_as_stated() -> None:
    torch.manual_seed(0)
    layer = Classifier(nn.Identity(), 400, 300, std=0.01, dropout=0.0).classifier.requires_grad_(False)
    assert float(layer.weight.std()) == pytest.approx(0.01, rel=0.02)
    assert abs(float(layer.weight.mean())) < 1e-4
    assert not layer.bias.any()


@settings(max_examples=100)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 64), st.integers(1, 12))
def test_every_image_appears_once_an_epoch(seed: int, n: int, batch_size: int, epochs: int) -> None:
    steps = math.ceil(n * epochs / batch_size)
    stream = np.concatenate([rows_of_step(seed, s, n, batch_size) for s in range(steps)])
    assert len(stream) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_order_and_crops_are_pure_functions_of_seed_and_step() -> None:
    assert np.array_equal(rows_of_step(1, 7, 50, 8), rows_of_step(1, 7, 50, 8))
    assert not np.array_equal(rows_of_step(1, 7, 50, 8), rows_of_step(2, 7, 50, 8))
    assert not np.array_equal(draws_of_step(1, 7, 8), draws_of_step(1, 8, 8))
    assert draws_of_step(1, 7, 8).shape == (8, DRAWS)


@given(st.integers(1, 100_000))
def test_curves_have_few_points_and_both_ends(steps: int) -> None:
    points = [s for s in range(min(steps, 5000)) if is_recorded(s, steps)]
    assert points[0] == 0
    assert is_recorded(steps - 1, steps)
    assert len(points) <= 130


@pytest.mark.parametrize("same", [True, False])
def test_the_projections_of_an_attention_decay_as_linear_layers_do(same: bool) -> None:
    network = nn.MultiheadAttention(8, 2, kdim=None if same else 4, vdim=None if same else 6)
    named = {id(p): name for name, p in network.named_parameters()}
    decayed, rest = ({named[id(p)] for p in g["params"]} for g in parameter_groups(network, 0.5))
    inner = {"in_proj_weight"} if same else {"q_proj_weight", "k_proj_weight", "v_proj_weight"}
    assert decayed == {*inner, "out_proj.weight"}
    assert rest == {"in_proj_bias", "out_proj.bias"}


def test_every_parameter_decays_where_that_is_asked_for() -> None:
    network = small()
    (group,) = parameter_groups(network, 0.5, everything=True)
    assert len(group["params"]) == len(list(network.parameters()))
    assert group["weight_decay"] == 0.5


def test_a_chosen_batch_norm_momentum_replaces_the_rule() -> None:
    assert batch_norm_momentum(75_750, 256, chosen=0.01) == 0.01
    assert batch_norm_momentum(75_750, 256, 4, chosen=0.01) == pytest.approx(1 - 0.99**0.25)


def test_label_smoothing_is_the_mixture_of_the_label_and_all_classes() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    log_p = logits.log_softmax(1)
    expected = -(0.9 * log_p[torch.arange(5), labels] + 0.1 * log_p.mean(1)).mean()
    assert loss_of(logits, labels, 0.1) == pytest.approx(float(expected), rel=1e-6)


def test_dropout_before_the_classifier_acts_while_training_only() -> None:
    torch.manual_seed(0)
    layer = Classifier(nn.Identity(), 400, 3, std=0.01, dropout=0.5)
    ones = torch.ones(1, 400)
    assert not torch.equal(layer(ones), layer(ones))
    layer.eval()
    assert torch.equal(layer(ones), layer(ones))
