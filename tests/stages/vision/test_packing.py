"""Packed convolutions give the features of plain ones, and what cannot be packed is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from stages.vision.layer_pairs import layer_pairs
from stages.vision.packing import PackedConvolution, pack_convolutions, symmetric

SIZE = 13


def images(rows: int = 3, channels: int = 3) -> Tensor:
    pixels = torch.randn(rows, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return pixels.contiguous(memory_format=torch.channels_last)


def packed(network: nn.Module, rows: int = 3) -> int:
    """Pack, hold the features against those of before, and count the packed layers."""
    plain = copy.deepcopy(network.eval())
    pack_convolutions(network, SIZE, rows)
    with torch.inference_mode():
        expected, got = plain(images(rows)), network(images(rows))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    return sum(isinstance(module, PackedConvolution) for module in network.modules())


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(5, 14), kernel=st.integers(1, 5), stride=st.integers(1, 3), dilation=st.integers(1, 2)
)
def test_padding_of_one_end_is_padding_of_both(side: int, kernel: int, stride: int, dilation: int) -> None:
    layer = Conv2dSame(4, 6, kernel, stride=stride, dilation=dilation)
    x = torch.randn(2, 4, side, side + 1)
    fitted = symmetric(layer, {(side, side + 1)})
    with torch.no_grad():
        if fitted is None:
            assert dilation == 2
            return
        padding, weight = fitted
        got = functional.conv2d(x, weight, layer.bias, layer.stride, padding, layer.dilation)
        torch.testing.assert_close(got, layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
@pytest.mark.parametrize("inplace", [False, True])
def test_an_activation_goes_with_its_convolution(act: type[nn.Module], inplace: bool) -> None:
    network = nn.Sequential(
        Conv2dSame(3, 8, 3, stride=2), act(inplace), nn.Conv2d(8, 8, 1, bias=False), nn.Flatten()
    )
    assert packed(network) == 2
    assert isinstance(network[1], nn.Identity)


class _Residual(nn.Module):
    """Adds in place, so that the activation reads the tensor of the convolution and not its values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        out += x
        return self.act(out).flatten(1)


def test_what_is_added_in_between_keeps_an_activation_where_it_is() -> None:
    network = _Residual()
    assert packed(network) == 1
    assert isinstance(network.act, nn.ReLU)


class _Reading(nn.Module):
    """Uses the weights of a layer besides calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3)) + self.layer.weight.sum()


def test_a_network_that_reads_its_weights_is_left_as_it_was() -> None:
    network = _Reading()
    assert packed(network) == 0
    assert isinstance(network.layer, nn.Conv2d)


class _Leaking(nn.Module):
    """Reads what a convolution has made before and behind the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return (self.act(out) + out).flatten(1)


def test_features_that_would_change_stay() -> None:
    network = _Leaking()
    assert packed(network) == 0
    assert isinstance(network.act, nn.ReLU)


def test_layers_that_are_watched_or_of_another_kind_are_left_alone() -> None:
    watched = nn.Conv2d(3, 3, 3)
    watched.register_forward_hook(lambda _module, _inputs, out: out * 2)
    mirrored = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
    named = nn.Conv2d(3, 4, 3, padding="same")
    assert packed(nn.Sequential(watched, mirrored, named, nn.Conv2d(4, 4, 3), nn.Flatten())) == 1


def test_a_layer_that_is_called_twice_at_two_sizes_is_packed_and_equal() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    assert packed(nn.Sequential(layer, nn.AvgPool2d(2), layer, nn.Flatten())) == 1  # at its first place
    same = Conv2dSame(3, 3, 3, stride=2)
    assert packed(nn.Sequential(same, same, nn.Flatten())) == 0


def test_pairs_are_layers_that_ran_once_and_read_the_very_output() -> None:
    act = nn.ReLU()
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Identity(), nn.ReLU(), nn.Conv2d(3, 3, 1), act, act, nn.Conv2d(3, 3, 1)
    )

    def made(module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d)

    def read(module: nn.Module) -> bool:
        return isinstance(module, nn.ReLU)

    with torch.inference_mode():
        assert layer_pairs(network, images(1), makes=made, reads=read) == [("0", "2")]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
