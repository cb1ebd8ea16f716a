"""The cells of NASNet-A: five blocks of two operations each (Zoph et al. 2018, arXiv 1707.07012, Figure 4).

Which operations stand where is the table ``NORMAL`` and ``REDUCTION``; modules are named as in timm's
``nasnetalarge`` and in the public ports of the published weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.vision.halving import max_halved, mean_halved

Source = Literal["current", "previous", "block_0", "block_1"]


class Branch(NamedTuple):
    """One operation of a cell, on one of its inputs or on what a block before gave."""

    operation: Literal["separable", "mean", "max", "identity"]
    source: Source
    kernel: int = 3
    halves: bool = False


Block = tuple[Branch, Branch]
"""Two branches whose results are added."""

NORMAL: tuple[Block, ...] = (
    (Branch("separable", "current", 5), Branch("separable", "previous", 3)),
    (Branch("separable", "previous", 5), Branch("separable", "previous", 3)),
    (Branch("mean", "current"), Branch("identity", "previous")),
    (Branch("mean", "previous"), Branch("mean", "previous")),
    (Branch("separable", "current", 3), Branch("identity", "current")),
)
REDUCTION: tuple[Block, ...] = (
    (Branch("separable", "current", 5, True), Branch("separable", "previous", 7, True)),
    (Branch("max", "current", 3, True), Branch("separable", "previous", 7, True)),
    (Branch("mean", "current", 3, True), Branch("separable", "previous", 5, True)),
    (Branch("identity", "block_1"), Branch("mean", "block_0")),
    (Branch("separable", "block_0", 3), Branch("max", "current", 3, True)),
)


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


def _point(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a point-wise convolution."""
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    """Return ReLU, point-wise convolution, batch norm."""
    return nn.Sequential(
        OrderedDict(relu=nn.ReLU(), conv=_point(inputs, outputs), bn=norm(outputs))  # the input is shared
    )


class _Separable(nn.Module):
    """A depth-wise convolution, then a point-wise one; a picture may be halved."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, halves: bool) -> None:
        super().__init__()
        self.depthwise_conv2d = nn.Conv2d(
            inputs,
            inputs,
            kernel,
            stride=2 if halves else 1,
            padding=0 if halves else kernel // 2,
            groups=inputs,
            bias=False,
        )
        self.pointwise_conv2d = _point(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h, w), or half the sides, rounded up."""
        if self.depthwise_conv2d.stride[0] == 2:  # TensorFlow's "SAME": an even side begins a pixel later
            half = self.depthwise_conv2d.kernel_size[0] // 2
            top, left = (half - 1 + side % 2 for side in x.shape[-2:])
            x = functional.pad(x, (left, half, top, half))
        return cast("Tensor", self.pointwise_conv2d(self.depthwise_conv2d(x)))


class _TwiceSeparable(nn.Module):
    """ReLU, separable convolution and batch norm, two times; the first may halve the picture."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, halves: bool) -> None:
        super().__init__()
        self.separable_1 = _Separable(inputs, outputs, kernel, halves=halves)
        self.bn_sep_1 = norm(outputs)
        self.separable_2 = _Separable(outputs, outputs, kernel, halves=False)
        self.bn_sep_2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h, w), or half the sides, rounded up."""
        x = self.bn_sep_1(self.separable_1(functional.relu(x)))
        return cast("Tensor", self.bn_sep_2(self.separable_2(functional.relu(x))))


_FIXED: dict[tuple[str, bool], Callable[[Tensor], Tensor]] = {
    ("identity", False): lambda x: x,
    ("max", True): max_halved,
    ("mean", True): mean_halved,
    ("mean", False): lambda x: functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False),
}
"""Operations without parameters, by name and by whether they halve."""


class Cell(nn.Module):
    """Five blocks over the outputs of the two cells before (the paper's Figure 4).

    Parameters
    ----------
    current, previous : int
        Channels of the cell just before and of the one before that.
    width : int
        Channels of every block.
    blocks : tuple of Block
        ``NORMAL``, or ``REDUCTION``, which halves the picture.
    adapt : {"project", "shrink", "as_is"}
        How ``previous`` becomes fit: to ``width``; to ``width`` and half the sides; not at all.
    """

    def __init__(
        self,
        current: int,
        previous: int,
        width: int,
        blocks: tuple[Block, ...],
        *,
        adapt: Literal["project", "shrink", "as_is"] = "project",
    ) -> None:
        super().__init__()
        self.blocks, self.adapt = blocks, adapt
        self.halves = any(branch.halves for block in blocks for branch in block)
        self.outputs = (4 if self.halves else 6) * width
        self.conv_1x1 = _projection(current, width)
        if adapt == "project":
            self.conv_prev_1x1 = _projection(previous, width)
        elif adapt == "shrink":
            self.path_1 = nn.Sequential(OrderedDict(conv=_point(previous, width // 2)))
            self.path_2 = nn.Sequential(OrderedDict(conv=_point(previous, width // 2)))
            self.final_path_bn = norm(width)
        for name, branch in self._branches():
            if branch.operation == "separable":
                inputs = previous if adapt == "as_is" and branch.source == "previous" else width
                module = _TwiceSeparable(inputs, width, branch.kernel, halves=branch.halves)
                self.add_module(name, module)

    def _branches(self) -> list[tuple[str, Branch]]:
        """Return every branch with the name of its module."""
        sides = ("left", "right")
        return [
            (f"comb_iter_{i}_{side}", branch)
            for i, block in enumerate(self.blocks)
            for side, branch in zip(sides, block, strict=True)
        ]

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """(n, current, h, w) and (n, previous, ., .) -> (n, outputs, h, w), or half the sides."""
        known = {"current": self.conv_1x1(current), "previous": self._adapted(previous)}
        results = []
        for i in range(len(self.blocks)):
            left, right = (self._branch(i, side, known) for side in (0, 1))
            results.append(left + right)
            known[f"block_{i}"] = results[-1]
        kept = results[1:] if self.halves else [known["previous"], *results]
        return torch.cat(kept, dim=1)

    def _branch(self, block: int, side: int, known: dict[str, Tensor]) -> Tensor:
        """Run one branch."""
        branch = self.blocks[block][side]
        x = known[branch.source]
        if branch.operation == "separable":
            module = self.get_submodule(f"comb_iter_{block}_{('left', 'right')[side]}")
            return cast("Tensor", module(x))
        return _FIXED[branch.operation, branch.halves](x)

    def _adapted(self, previous: Tensor) -> Tensor:
        """Make the earlier cell's output fit."""
        if self.adapt == "project":
            return cast("Tensor", self.conv_prev_1x1(previous))
        if self.adapt == "as_is":
            return previous
        # Every second pixel, and beside it every second pixel of the picture moved by one.
        x = functional.relu(previous)
        moved = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        paths = [self.path_1(x[:, :, ::2, ::2]), self.path_2(moved[:, :, ::2, ::2])]
        return cast("Tensor", self.final_path_bn(torch.cat(paths, dim=1)))
