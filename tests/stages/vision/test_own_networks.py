"""BN-Inception and NASNet-A Mobile: equal to the published networks, and modules as timm's are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import create_model, is_model
from torch import Tensor, nn

from stages.backbones import resolve
from stages.errors import WeightsError
from stages.records import Backbone
from stages.vision.bn_inception import BnInception, checkpoint_filter_fn
from stages.vision.folding import fold_batch_norms
from stages.vision.halving import max_halved, mean_halved
from stages.vision.nasnet_mobile import NasnetMobile
from stages.vision.networks import build_bare, build_network
from stages.vision.transforms import normalise
from tests.stages.vision.published_networks import (
    State,
    bn_inception_features,
    bn_inception_state,
    nasnet_mobile_features,
    nasnet_mobile_state,
)


class Published(NamedTuple):
    """A published network and what is written here for it."""

    name: str
    kind: type[nn.Module]
    state: Callable[..., State]
    features: Callable[[State, Tensor], Tensor]
    as_published: Callable[[Tensor], Tensor]
    """RGB in [0, 255] to the input the published network takes."""
    total: int
    """Parameters with 1000 classes."""


def bgr_less_mean(rgb: Tensor) -> Tensor:
    return rgb.double().flip(1) - torch.tensor([104.0, 117.0, 128.0]).view(3, 1, 1)


def minus_one_to_one(rgb: Tensor) -> Tensor:
    return rgb.double() / 127.5 - 1


NETWORKS = [
    Published(
        "bn_inception", BnInception, bn_inception_state, bn_inception_features, bgr_less_mean, 11_295_240
    ),
    Published(
        "nasnet_a_mobile",
        NasnetMobile,
        nasnet_mobile_state,
        nasnet_mobile_features,
        minus_one_to_one,
        5_289_978,
    ),
]
each = pytest.mark.parametrize("published", NETWORKS, ids=[p.name for p in NETWORKS])


def pixels(size: int, n: int = 1) -> Tensor:
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()


def from_file(published: Published, state: State, folder: Path) -> Backbone:
    torch.save(state, folder / "weights.pth")
    return resolve(f"paper:{published.name}", weights=f"file:{folder / 'weights.pth'}")


@each
def test_published_weights_give_the_published_networks_features(published: Published, tmp_path: Path) -> None:
    """From the bytes of an image: colours, value range, key names, arithmetic."""
    state = published.state()
    backbone = from_file(published, state, tmp_path)
    images = pixels(224, 2)
    with torch.inference_mode():
        expected = published.features(state, published.as_published(images))
        network = build_network(backbone).double()
        got = network(normalise(images, backbone.preprocessing).double())
    assert got.shape == (2, backbone.dimension)
    assert expected.std(0).max() > 1e-3, "the images must make a difference"
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-6


@each
def test_arithmetic_agrees_to_the_last_digits(published: Published) -> None:
    """In float64 a padding off by one pixel shows, which the many layers behind it would all but hide."""
    state = published.state(1)
    network = create_model(published.name, num_classes=1000).eval()
    prepared = checkpoint_filter_fn(state, network)
    network.load_state_dict(prepared, strict=False)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flipped = x.flip(1) if published.name == "bn_inception" else x
    with torch.inference_mode():
        expected = published.features(state, flipped)
        features = network.double().forward_features(x)
        got = network.forward_head(features, pre_logits=True)
        logits = network(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    linear = state["last_linear.weight"].double(), state["last_linear.bias"].double()
    torch.testing.assert_close(logits, expected @ linear[0].T + linear[1], rtol=1e-9, atol=1e-12)


@each
def test_a_state_by_names_and_shapes_is_complete(published: Published) -> None:
    state = published.state()
    network = create_model(published.name, num_classes=1000)
    counted = sum(v.numel() for k, v in state.items() if "running" not in k)
    assert counted == published.total == sum(p.numel() for p in network.parameters())
    outcome = network.load_state_dict(checkpoint_filter_fn(state, network), strict=False)
    assert not outcome.unexpected_keys
    assert all(k.endswith("num_batches_tracked") for k in outcome.missing_keys)


@each
def test_the_independent_package_agrees(published: Published) -> None:
    """Where it is installed: the project that published the weights, against the same random ones."""
    package = pytest.importorskip("pretrainedmodels", reason="pretrainedmodels is not installed")
    builder = {"bn_inception": "bninception", "nasnet_a_mobile": "nasnetamobile"}[published.name]
    theirs = getattr(package, builder)(num_classes=1000, pretrained=None).eval()
    outcome = theirs.load_state_dict(published.state(2), strict=False)
    assert not outcome.unexpected_keys
    network = create_model(published.name, num_classes=1000).eval()
    network.load_state_dict(checkpoint_filter_fn(theirs.state_dict(), network))
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        expected = theirs.double()(x.flip(1) if published.name == "bn_inception" else x)
        torch.testing.assert_close(network.double()(x), expected, rtol=1e-9, atol=1e-12)


@each
@pytest.mark.parametrize("outputs", [1000, 1001])
def test_a_published_classifier_of_any_size_is_dropped(
    published: Published, outputs: int, tmp_path: Path
) -> None:
    backbone = from_file(published, published.state(outputs=outputs), tmp_path)
    assert not [k for k in build_network(backbone).state_dict() if k.startswith("last_linear")]


@each
def test_a_file_of_our_own_is_taken_as_it_is(published: Published, tmp_path: Path) -> None:
    """Fine-tuned weights read RGB already."""
    whole = create_model(published.name, num_classes=7)
    backbone = from_file(published, whole.state_dict(), tmp_path)
    loaded, expected = build_network(backbone).state_dict(), whole.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.items())


def test_the_first_convolution_of_a_published_file_is_turned_round() -> None:
    state = bn_inception_state()
    weight = checkpoint_filter_fn(state, nn.Identity())["conv1.conv.weight"]
    for ours, theirs in enumerate((2, 1, 0)):
        assert torch.equal(weight[:, ours], state["conv1_7x7_s2.weight"][:, theirs])


def test_old_files_with_batch_norms_of_two_axes_load(tmp_path: Path) -> None:
    state = bn_inception_state()
    old = {k: v[None] if "_bn." in k else v for k, v in state.items()}
    for name, contents in (("new", state), ("old", old)):
        (tmp_path / name).mkdir()
        torch.save(contents, tmp_path / name / "w.pth")
    states = [
        build_network(resolve("bn_inception", weights=f"file:{tmp_path / name / 'w.pth'}")).state_dict()
        for name in ("new", "old")
    ]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


@each
def test_a_published_file_with_a_tensor_missing_is_refused(published: Published, tmp_path: Path) -> None:
    state = published.state()
    taken = next(k for k in state if k.startswith(("inception_4c_1x1_bn", "cell_9.conv_1x1.bn")))
    del state[taken]
    state["surplus.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"1 missing .*1 unexpected") as caught:
        build_network(from_file(published, state, tmp_path))
    assert "\n" not in str(caught.value)


@each
def test_they_are_timm_networks(published: Published) -> None:
    assert is_model(published.name)
    network: Any = create_model(published.name, num_classes=5, drop_rate=0.5)
    assert isinstance(network, published.kind)
    assert network.num_classes == network.get_classifier().out_features == 5
    assert network.get_submodule(network.pretrained_cfg["classifier"]) is network.get_classifier()
    assert isinstance(network.get_submodule(network.pretrained_cfg["first_conv"]), nn.Conv2d)
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.inference_mode():
        features = network.forward_features(x)
        assert features.shape == (2, network.num_features, 3, 3)
        vector = network.forward_head(features, pre_logits=True)
        assert vector.shape == (2, network.head_hidden_size)
        torch.testing.assert_close(vector, features.mean((2, 3)))
        assert torch.equal(network(x), network.get_classifier()(vector))
        network.reset_classifier(0)
        assert torch.equal(network(x), vector)
        network.reset_classifier(3, "max")
        assert network(x).shape == (2, 3)
        assert torch.equal(network.forward_head(features, pre_logits=True), features.amax((2, 3)))
        network.train()
        assert (network.forward_head(features, pre_logits=True) == 0).any()


@each
@pytest.mark.parametrize("size", [64, 95, 160, 225])
def test_they_take_any_size(published: Published, size: int) -> None:
    with torch.inference_mode():
        out = create_model(published.name, num_classes=0).eval()(torch.randn(1, 3, size, size + 3))
    assert torch.isfinite(out).all()


@each
def test_folding_leaves_their_features(published: Published, tmp_path: Path) -> None:
    backbone = from_file(published, published.state(3), tmp_path)
    network = build_network(backbone)
    folded = fold_batch_norms(network, 128)

    def norms(of: nn.Module) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in of.modules())

    # Four batch norms of NASNet read two convolutions side by side.
    assert (norms(network), norms(folded)) == {"bn_inception": (69, 0), "nasnet_a_mobile": (192, 4)}[
        published.name
    ]
    x = normalise(pixels(160, 2), backbone.preprocessing)
    with torch.inference_mode():
        before, after = network(x), folded(x)
        expected, exact = (copy.deepcopy(n).double()(x.double()) for n in (network, folded))
    assert before.std(0).max() > 1e-3
    assert float((before - after).abs().max() / before.abs().max()) < 1e-5
    assert float((expected - exact).abs().max() / expected.abs().max()) < 1e-6


@each
def test_they_train_and_travel(published: Published) -> None:
    network = create_model(published.name, num_classes=2, drop_rate=0.0).train()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    again = pickle.loads(pickle.dumps(network)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(x), network.eval()(x))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_halving_is_what_tensorflow_calls_same(height: int, width: int, seed: int) -> None:
    """Window by window: on an even side they begin at 0, on an odd one at -1, and only pixels count."""
    x = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    picture = x[0, 0].numpy()

    def windows(side: int) -> list[slice]:
        return [slice(max(i - side % 2, 0), i - side % 2 + 3) for i in range(0, side, 2)]

    rows, columns = windows(height), windows(width)
    largest = np.array([[picture[r, c].max() for c in columns] for r in rows])
    means = np.array([[picture[r, c].mean() for c in columns] for r in rows])
    np.testing.assert_array_equal(max_halved(x)[0, 0].numpy(), largest)
    np.testing.assert_allclose(mean_halved(x)[0, 0].numpy(), means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["paper:resnet_50", "paper:inception_v1"])
def test_other_networks_take_the_ports_name_of_the_classifier(name: str, tmp_path: Path) -> None:
    """The public ports call every network's classifier ``last_linear``."""
    body, _ = build_bare(name)
    torch.save(body.state_dict() | {"last_linear.weight": torch.zeros(1000, 4)}, tmp_path / "port.pth")
    loaded = build_network(resolve(name, weights=f"file:{tmp_path / 'port.pth'}")).state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in body.state_dict().items())
