"""BN-Inception and NASNet-A Mobile a second time: plain functions over state dicts with the public key names.

Written from the released networks' layer lists, apart from the modules under test: state dicts drawn by name and
shape, and forward passes that look every tensor up by its public name. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

State = dict[str, Tensor]

BN_LAYERS = """
conv1_7x7_s2 3 64 7 | conv2_3x3_reduce 64 64 1 | conv2_3x3 64 192 3
3a 192: 1x1 64 | 3x3 64 64 | double_3x3 64 96 | pool_proj 32
3b 256: 1x1 64 | 3x3 64 96 | double_3x3 64 96 | pool_proj 64
3c 320: 3x3 128 160 | double_3x3 64 96
4a 576: 1x1 224 | 3x3 64 96 | double_3x3 96 128 | pool_proj 128
4b 576: 1x1 192 | 3x3 96 128 | double_3x3 96 128 | pool_proj 128
4c 576: 1x1 160 | 3x3 128 160 | double_3x3 128 160 | pool_proj 128
4d 608: 1x1 96 | 3x3 128 192 | double_3x3 160 192 | pool_proj 128
4e 608: 3x3 128 192 | double_3x3 192 256
5a 1056: 1x1 352 | 3x3 192 320 | double_3x3 160 224 | pool_proj 128
5b 1024: 1x1 352 | 3x3 192 320 | double_3x3 192 224 | pool_proj 128
"""


class Draw:
    """Random tensors under names; the statistics keep signals alive through many layers."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator) * (high - low) + low

    def convolution(self, name: str, inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> None:
        """Zero-mean rows, so that means of positive inputs do not grow into constants."""
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=self._generator)
        self.state[f"{name}.weight"] = weight * (2 / (inputs * kernel * kernel)) ** 0.5
        if bias:
            self.state[f"{name}.bias"] = self.uniform(-0.2, 0.2, outputs)

    def norm(self, name: str, channels: int) -> None:
        for leaf, low, high in (
            ("weight", 0.8, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.2, 0.2), ("running_var", 0.3, 1.2),
        ):  # fmt: skip
            self.state[f"{name}.{leaf}"] = self.uniform(low, high, channels)

    def linear(self, inputs: int, outputs: int) -> None:
        self.state["last_linear.weight"] = torch.randn(outputs, inputs, generator=self._generator) * 0.02
        self.state["last_linear.bias"] = self.uniform(-0.1, 0.1, outputs)


def bn_inception_state(seed: int = 0, *, outputs: int = 1000) -> State:
    """As the Caffe release's port names it; without step counters, as files of that time are."""
    draw = Draw(seed)

    def layer(name: str, inputs: int, channels: int, kernel: int) -> None:
        draw.convolution(name, inputs, channels, kernel, bias=True)
        draw.norm(f"{name}_bn", channels)

    first, *modules = BN_LAYERS.strip().splitlines()
    for words in (part.split() for part in first.split("|")):
        layer(words[0], *(int(word) for word in words[1:]))
    for line in modules:
        head, _, branches = line.partition(":")
        name, inputs = f"inception_{head.split()[0]}", int(head.split()[1])
        for kind, *widths in (part.split() for part in branches.split("|")):
            w = [int(word) for word in widths]
            if len(w) == 1:
                layer(f"{name}_{kind}", inputs, w[0], 1)
                continue
            layer(f"{name}_{kind}_reduce", inputs, w[0], 1)
            if kind == "3x3":
                layer(f"{name}_3x3", w[0], w[1], 3)
            else:
                layer(f"{name}_{kind}_1", w[0], w[1], 3)
                layer(f"{name}_{kind}_2", w[1], w[1], 3)
    draw.linear(1024, outputs)
    return draw.state


def bn_inception_features(state: State, bgr: Tensor) -> Tensor:
    """(n, 3, 224, 224) BGR in [0, 255] less (104, 117, 128) -> (n, 1024)."""
    s = {k: v.double() for k, v in state.items()}

    def layer(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = s[f"{name}.weight"]
        x = F.conv2d(x, weight, s[f"{name}.bias"], stride, weight.shape[-1] // 2)
        return F.relu(norm(x, s, f"{name}_bn", 1e-5))

    x = F.max_pool2d(layer(bgr.double(), "conv1_7x7_s2", 2), 3, 2, ceil_mode=True)
    x = F.max_pool2d(layer(layer(x, "conv2_3x3_reduce"), "conv2_3x3"), 3, 2, ceil_mode=True)
    for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        m = f"inception_{name}_"
        stride = 2 if name in ("3c", "4e") else 1
        branches = [layer(layer(x, m + "3x3_reduce"), m + "3x3", stride)]
        double = layer(layer(x, m + "double_3x3_reduce"), m + "double_3x3_1")
        branches.append(layer(double, m + "double_3x3_2", stride))
        if stride == 2:
            branches.append(F.max_pool2d(x, 3, 2, ceil_mode=True))
        else:
            branches.insert(0, layer(x, m + "1x1"))
            pooled = F.max_pool2d(x, 3, 1, 1) if name == "5b" else F.avg_pool2d(x, 3, 1, 1)
            branches.append(layer(pooled, m + "pool_proj"))
        x = torch.cat(branches, 1)
    return x.mean((2, 3))


def norm(x: Tensor, s: State, name: str, eps: float) -> Tensor:
    """A batch norm in evaluation mode, spelt out."""
    scale = s[f"{name}.weight"] / (s[f"{name}.running_var"] + eps).sqrt()
    shift = s[f"{name}.bias"] - s[f"{name}.running_mean"] * scale
    return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


# Cell, channels of the cell before, channels of the one before that, width, whether it halves the picture.
NASNET_CELLS = (
    ("cell_stem_0", 32, 32, 11, True), ("cell_stem_1", 44, 32, 22, True),
    ("cell_0", 88, 44, 44, False), ("cell_1", 264, 88, 44, False),
    ("cell_2", 264, 264, 44, False), ("cell_3", 264, 264, 44, False),
    ("reduction_cell_0", 264, 264, 88, True),
    ("cell_6", 352, 264, 88, False), ("cell_7", 528, 352, 88, False),
    ("cell_8", 528, 528, 88, False), ("cell_9", 528, 528, 88, False),
    ("reduction_cell_1", 528, 528, 176, True),
    ("cell_12", 704, 528, 176, False), ("cell_13", 1056, 704, 176, False),
    ("cell_14", 1056, 1056, 176, False), ("cell_15", 1056, 1056, 176, False),
)  # fmt: skip
SHRINKING = ("cell_stem_1", "cell_0", "cell_6", "cell_12")
SEPARABLES = {
    False: {"0_left": 5, "0_right": 3, "1_left": 5, "1_right": 3, "4_left": 3},
    True: {"0_left": 5, "0_right": 7, "1_right": 7, "2_right": 5, "4_left": 3},
}


def nasnet_mobile_state(seed: int = 0, *, outputs: int = 1000) -> State:
    """As the port of TensorFlow's release names it."""
    draw = Draw(seed)
    draw.convolution("conv0.conv", 3, 32, 3)
    draw.norm("conv0.bn", 32)
    for cell, current, previous, width, halves in NASNET_CELLS:
        draw.convolution(f"{cell}.conv_1x1.conv", current, width, 1)
        draw.norm(f"{cell}.conv_1x1.bn", width)
        if cell in SHRINKING:
            for path in ("path_1", "path_2"):
                draw.convolution(f"{cell}.{path}.conv", previous, width // 2, 1)
            draw.norm(f"{cell}.final_path_bn", width)
        elif cell != "cell_stem_0":
            draw.convolution(f"{cell}.conv_prev_1x1.conv", previous, width, 1)
            draw.norm(f"{cell}.conv_prev_1x1.bn", width)
        for place, kernel in SEPARABLES[halves].items():
            inputs = 32 if cell == "cell_stem_0" and place.endswith("right") else width
            for i, channels in ((1, inputs), (2, width)):
                name = f"{cell}.comb_iter_{place}.separable_{i}"
                draw.convolution(f"{name}.depthwise_conv2d", 1, channels, kernel)
                draw.convolution(f"{name}.pointwise_conv2d", channels, width, 1)
                draw.norm(f"{cell}.comb_iter_{place}.bn_sep_{i}", width)
    draw.linear(1056, outputs)
    return draw.state


def nasnet_mobile_features(state: State, x: Tensor) -> Tensor:
    """(n, 3, 224, 224) in [-1, 1] -> (n, 1056)."""
    s = {k: v.double() for k, v in state.items()}
    before = now = norm(F.conv2d(x.double(), s["conv0.conv.weight"], stride=2), s, "conv0.bn", 1e-3)
    for cell, _, _, _, halves in NASNET_CELLS:
        run = _reduction_cell if halves else _normal_cell
        before, now = now, run(s, cell, now, before)
    return F.relu(now).mean((2, 3))


def _same(x: Tensor, kernel: int, stride: int, fill: float = 0.0) -> Tensor:
    """TensorFlow's "SAME" padding by its definition."""
    pads: list[int] = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=fill)


def _average(x: Tensor, stride: int) -> Tensor:
    """The mean of what lies inside the picture."""
    ones = torch.ones_like(x)
    return F.avg_pool2d(_same(x, 3, stride), 3, stride) / F.avg_pool2d(_same(ones, 3, stride), 3, stride)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(_same(x, 3, 2, -torch.inf), 3, 2)


def _separable(s: State, cell: str, place: str, stride: int) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        for i, step in ((1, stride), (2, 1)):
            name = f"{cell}.comb_iter_{place}."
            depth = s[f"{name}separable_{i}.depthwise_conv2d.weight"]
            x = _same(F.relu(x), depth.shape[-1], step)
            x = F.conv2d(x, depth, stride=step, groups=len(depth))
            x = F.conv2d(x, s[f"{name}separable_{i}.pointwise_conv2d.weight"])
            x = norm(x, s, f"{name}bn_sep_{i}", 1e-3)
        return x

    return run


def _projected(s: State, name: str, x: Tensor) -> Tensor:
    return norm(F.conv2d(F.relu(x), s[f"{name}.conv.weight"]), s, f"{name}.bn", 1e-3)


def _earlier(s: State, cell: str, before: Tensor) -> Tensor:
    if cell == "cell_stem_0":
        return before
    if cell not in SHRINKING:
        return _projected(s, f"{cell}.conv_prev_1x1", before)
    x = F.relu(before)
    one = F.conv2d(x[:, :, ::2, ::2], s[f"{cell}.path_1.conv.weight"])
    shifted = torch.zeros_like(x)
    shifted[:, :, :-1, :-1] = x[:, :, 1:, 1:]
    two = F.conv2d(shifted[:, :, ::2, ::2], s[f"{cell}.path_2.conv.weight"])
    return norm(torch.cat([one, two], 1), s, f"{cell}.final_path_bn", 1e-3)


def _normal_cell(s: State, cell: str, now: Tensor, before: Tensor) -> Tensor:
    h, p = _projected(s, f"{cell}.conv_1x1", now), _earlier(s, cell, before)
    return torch.cat(
        [
            p,
            _separable(s, cell, "0_left", 1)(h) + _separable(s, cell, "0_right", 1)(p),
            _separable(s, cell, "1_left", 1)(p) + _separable(s, cell, "1_right", 1)(p),
            _average(h, 1) + p,
            2 * _average(p, 1),
            _separable(s, cell, "4_left", 1)(h) + h,
        ],
        1,
    )


def _reduction_cell(s: State, cell: str, now: Tensor, before: Tensor) -> Tensor:
    h, p = _projected(s, f"{cell}.conv_1x1", now), _earlier(s, cell, before)
    first = _separable(s, cell, "0_left", 2)(h) + _separable(s, cell, "0_right", 2)(p)
    second = _maximum(h) + _separable(s, cell, "1_right", 2)(p)
    third = _average(h, 2) + _separable(s, cell, "2_right", 2)(p)
    fifth = _separable(s, cell, "4_left", 1)(first) + _maximum(h)
    return torch.cat([second, third, _average(first, 1) + second, fifth], 1)
