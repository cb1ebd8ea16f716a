"""BN-Inception: Inception with batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167, appendix).

The widths are those of the network's Caffe release, whose weights are public: where it and the paper's table
differ (the pooling branches of 4c and 4d, and so what 4e hands on), the release is what the name stands for,
with 11,295,240 parameters for 1000 classes.

The release takes BGR in [0, 255] less its mean. Here the network takes RGB like every other: the value range
stands in the preprocessing (mean (128, 117, 104) / 255, std 1 / 255), and the colours change places in the
first convolution when a file with the release's key names is loaded. A file with this module's own key names
is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from timm.layers.conv_bn_act import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from stages.vision.halving import max_halved
from stages.vision.headed import Headed

__all__ = ["BnInception", "bn_inception", "checkpoint_filter_fn"]

_WIDTHS: Mapping[str, tuple[int, int, int, int, int, int]] = {
    # point-wise; reduction and width of the 3x3 branch; reduction and width of the double 3x3 branch; pooling.
    # A module without a point-wise branch halves the picture, and its pooling branch is not projected.
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}
_MAXIMUM = "5b"
"""The one module that takes maxima without halving."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvNormAct:
    """Return convolution, batch norm, ReLU; the release's convolutions have a bias."""
    return ConvNormAct(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=True)


class Inception(nn.Module):
    """Point-wise, 3x3, double 3x3 and pooling branches side by side.

    Parameters
    ----------
    inputs : int
        Channels in; ``outputs`` are the channels out.
    name : str
        "3a" to "5b".
    """

    def __init__(self, inputs: int, name: str) -> None:
        super().__init__()
        point, reduced, width, double_reduced, double, pooled = _WIDTHS[name]
        stride = 1 if point else 2
        self.point = _convolution(inputs, point, 1) if point else None
        self.single_reduce = _convolution(inputs, reduced, 1)
        self.single = _convolution(reduced, width, 3, stride)
        self.double_reduce = _convolution(inputs, double_reduced, 1)
        self.double_1 = _convolution(double_reduced, double, 3)
        self.double_2 = _convolution(double, double, 3, stride)
        self.pool = _convolution(inputs, pooled, 1) if pooled else None
        self.takes_maximum = name == _MAXIMUM
        self.outputs = point + width + double + (pooled or inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h, w), or half the sides where the module halves."""
        single = self.single(self.single_reduce(x))
        double = self.double_2(self.double_1(self.double_reduce(x)))
        if self.point is None:
            return torch.cat([single, double, max_halved(x)], dim=1)
        return torch.cat([self.point(x), single, double, self._pooled(x)], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        """Pool and project; the means count the zeros around the picture, as the release does."""
        assert self.pool is not None
        pool = functional.max_pool2d if self.takes_maximum else functional.avg_pool2d
        return cast("Tensor", self.pool(pool(x, 3, stride=1, padding=1)))


class BnInception(Headed):
    """The network, with timm's methods.

    Parameters
    ----------
    num_classes : int
        0 = without classifier.
    in_chans : int
        Channels of the input.
    global_pool : str
        timm's name of a pooling.
    drop_rate : float
        Dropout before the classifier; the paper uses none.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(in_chans, 64, 7, 2)
        self.conv2_reduce = _convolution(64, 64, 1)
        self.conv2 = _convolution(64, 192, 3)
        self.modules_3_to_5 = nn.ModuleDict()
        channels = 192
        for name in _WIDTHS:
            module = Inception(channels, name)
            self.modules_3_to_5[name] = module
            channels = module.outputs
        self.add_head(channels, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) -> (n, 1024, 7, 7)."""
        x = functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.conv2(self.conv2_reduce(x)), 3, 2, ceil_mode=True)
        for module in self.modules_3_to_5.values():
            x = module(x)
        return x


_STEM = {"conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2_reduce", "conv2_3x3": "conv2"}
_BRANCHES = {
    "1x1": "point",
    "3x3_reduce": "single_reduce",
    "3x3": "single",
    "double_3x3_reduce": "double_reduce",
    "double_3x3_1": "double_1",
    "double_3x3_2": "double_2",
    "pool_proj": "pool",
}


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Translate a state dict with the release's key names; one with this module's names is left as it is.

    Parameters
    ----------
    state : mapping of str to Tensor
        The release's: ``inception_3a_1x1.weight``, ``inception_3a_1x1_bn.running_mean``, ...; its batch norms
        may be of shape (1, c), and its first convolution reads BGR.
    model : torch.nn.Module
        Unused; timm hands it over.

    Returns
    -------
    dict of str to Tensor
        For an input in RGB.
    """
    del model
    if "conv1_7x7_s2.weight" not in state:
        return dict(state)
    translated = {_translate(key): _plain(key, tensor) for key, tensor in state.items()}
    translated["conv1.conv.weight"] = state["conv1_7x7_s2.weight"].flip(1)
    return translated


def _translate(key: str) -> str:
    """Translate one key name; the classifier keeps its own."""
    layer, _, leaf = key.partition(".")
    kind = "bn" if layer.endswith("_bn") else "conv"
    layer = layer.removesuffix("_bn")
    if layer in _STEM:
        return f"{_STEM[layer]}.{kind}.{leaf}"
    found = re.fullmatch(r"inception_(\d[a-e])_(\w+)", layer)
    if found is None or found[2] not in _BRANCHES:
        return key
    return f"modules_3_to_5.{found[1]}.{_BRANCHES[found[2]]}.{kind}.{leaf}"


def _plain(key: str, tensor: Tensor) -> Tensor:
    """Take the first axis off the batch norms of old files."""
    return tensor.reshape(-1) if "_bn." in key and tensor.ndim == 2 else tensor


default_cfgs = generate_default_cfgs(
    {
        "bn_inception.caffe_in1k": {
            "url": "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (128 / 255, 117 / 255, 104 / 255),
            "std": (1 / 255, 1 / 255, 1 / 255),
            "num_classes": 1000,
            "first_conv": "conv1.conv",
            "classifier": "last_linear",
        }
    }
)


@register_model
def bn_inception(pretrained: bool = False, **kwargs: Any) -> BnInception:
    """Build BN-Inception as ``timm.create_model`` does."""
    return build_model_with_cfg(
        BnInception, "bn_inception", pretrained, pretrained_filter_fn=checkpoint_filter_fn, **kwargs
    )
