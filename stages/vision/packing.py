"""Convolutions laid out for the CPU that computes them, each with the activation behind it.

Where one thread computes few images, torch takes its own matrix product for 1 x 1 convolutions instead of
oneDNN's, lays the weights out anew at every call, and reads and writes every feature map once more for the
activation. Here oneDNN is called directly, with weights that were laid out once (measured: a MobileNet-like
network at 224 pixels takes two thirds of the time).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stages.vision.folding import are_equal
from stages.vision.layer_pairs import layer_pairs, replace_layer

Sides = tuple[int, int]
Activation = tuple[str, list[float]]
"""oneDNN's word for it, and its constants."""

_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}


class PackedConvolution(nn.Module):
    """A convolution with an activation; on the CPU, float32, forward only."""

    def __init__(
        self,
        convolution: nn.Conv2d,
        rows: int,
        sides: Sides,
        fitted: tuple[Sides, Tensor],
        activation: Activation,
    ) -> None:
        super().__init__()
        padding, weight = fitted
        self._shape = padding, convolution.stride, convolution.dilation, convolution.groups
        self._bias = None if convolution.bias is None else convolution.bias.detach()
        self._activation = activation
        # For another size the layout may be another one, and would be made anew at every call.
        reads = [rows, convolution.in_channels, *sides]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._shape, reads)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h', w')."""
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.contiguous(memory_format=torch.channels_last),
            self._weight,
            self._bias,
            *self._shape,
            *self._activation,
            "",
        )
        return y


def pack_convolutions(network: nn.Module, size: int, rows: int) -> None:
    """Lay out the convolutions of a network; where that changes its features, it is left as it was.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on the CPU, float32; changed in place.
    size : int
        Side of the input, pixels.
    rows : int
        Images that are computed at a time.
    """
    known = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    if not (known and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    followers = dict(layer_pairs(network, images[:1], makes=_is_convolution, reads=_is_activation))
    inputs = _input_sides(network, images[:1])
    with torch.inference_mode():
        before = network(images)
    taken_out: dict[str, nn.Module] = {}

    def put(name: str, layer: nn.Module) -> None:
        taken_out[name] = network.get_submodule(name)
        replace_layer(network, name, layer)

    try:
        _pack(network, rows, inputs, followers, put)
        with torch.inference_mode():
            equal = are_equal(before, network(images))
    except (AttributeError, TypeError, RuntimeError):  # weights that are read elsewhere, a CPU without oneDNN
        equal = False
    if not equal:
        for name, layer in taken_out.items():
            replace_layer(network, name, layer)


def _pack(
    network: nn.Module,
    rows: int,
    inputs: dict[str, set[Sides]],
    followers: dict[str, str],
    put: Callable[[str, nn.Module], None],
) -> None:
    """Replace what can be replaced."""
    for name, sides in inputs.items():
        convolution: Any = network.get_submodule(name)
        fitted = symmetric(convolution, sides)
        if fitted is not None:
            activation: Activation = ("none", [])
            if name in followers:
                activation = _ACTIVATIONS[type(network.get_submodule(followers[name]))]
                put(followers[name], nn.Identity())
            put(name, PackedConvolution(convolution, rows, max(sides), fitted, activation))


def symmetric(convolution: nn.Conv2d, inputs: set[Sides]) -> tuple[Sides, Tensor] | None:
    """Return padding and weights of an equal convolution that pads both ends alike; None where there is none.

    TensorFlow's "SAME" pads one pixel more behind than in front: a row of zeros in front of the weights
    takes that pixel back, and nothing has to be copied to be padded.

    Parameters
    ----------
    convolution : torch.nn.Conv2d
    inputs : set of (int, int)
        Height and width of what it reads.
    """
    weight = convolution.weight.detach()
    if type(convolution) is nn.Conv2d and not isinstance(convolution.padding, str):
        return (convolution.padding[0], convolution.padding[1]), weight.contiguous()
    if type(convolution) is nn.Conv2d or len(inputs) != 1:
        return None
    padding = []
    for axis, side in enumerate(next(iter(inputs))):
        stride, step = convolution.stride[axis], convolution.dilation[axis]
        reach = (convolution.kernel_size[axis] - 1) * step + 1
        total = max(0, (-(-side // stride) - 1) * stride + reach - side)
        if total % 2:
            if step > 1:
                return None
            weight = torch.cat([torch.zeros_like(weight.narrow(2 + axis, 0, 1)), weight], 2 + axis)
        padding.append(total - total // 2)
    return (padding[0], padding[1]), weight.contiguous()


def _input_sides(network: nn.Module, images: Tensor) -> dict[str, set[Sides]]:
    """Run the network once; return height and width of what each convolution reads."""
    sides: dict[str, set[Sides]] = {}

    def look(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sides.setdefault(name, set()).add((inputs[0].shape[-2], inputs[0].shape[-1]))

        return hook

    handles = [
        module.register_forward_pre_hook(look(name))
        for name, module in network.named_modules()
        if _is_convolution(module)
    ]
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return sides


def _is_convolution(module: nn.Module) -> bool:
    """Whether it is a plain convolution, or timm's that pads as TensorFlow does, and nobody watches it."""
    from timm.layers.conv2d_same import Conv2dSame

    watched = module._forward_hooks or module._forward_pre_hooks
    plain = type(module) in (nn.Conv2d, Conv2dSame) and not watched
    return plain and getattr(module, "padding_mode", "") == "zeros"


def _is_activation(module: nn.Module) -> bool:
    """Whether oneDNN has it."""
    return type(module) in _ACTIVATIONS
