"""The classifier that pretrained weights bring along, which turns penultimate features into source classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from stages.errors import BackboneError, WeightsError
from stages.paper_backbones import built_name
from stages.records import Backbone
from stages.vision.fetch import fetch_weights
from stages.vision.networks import seeded, whole_torchvision, without_draws
from stages.vision.weights import load_into

CLOSE = 1e-4
"""Relative to the largest logit: how closely the last layer must give what the whole network gives."""
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Classifiers beside the last one, which a weights file may bring."""


@dataclass(frozen=True)
class SourceHead:
    """A linear layer of Z source classes over d penultimate features."""

    weight: NDArray[np.float32]
    """(Z, d)."""
    bias: NDArray[np.float32]
    """(Z,)."""

    def probabilities(self, features: NDArray[Any], *, rows: int = 4096) -> NDArray[np.float32]:
        """Return (n, Z) probabilities of the source classes for (n, d) features, computed in blocks of rows."""
        found = np.empty((len(features), len(self.weight)), np.float32)
        for start in range(0, len(features), rows):
            block = np.asarray(features[start : start + rows], np.float32)
            logits = block @ self.weight.T + self.bias
            found[start : start + rows] = softmax(logits, axis=1)
        return found


def source_head(backbone: Backbone) -> SourceHead:
    """Return the last layer that a backbone's weights were trained with.

    Parameters
    ----------
    backbone : Backbone
        With trained weights; those that are not on this machine yet are downloaded.

    Raises
    ------
    WeightsError
        There is no such layer: random weights, features without a network, weights that cannot be had or lack the
        classifier, or a network whose last layer does not read its penultimate features.
    BackboneError
        The network cannot be built.
    """
    if backbone.weights.kind in ("random", "cached") or backbone.name.startswith("python:"):
        raise WeightsError(f"{backbone.label}: weights ({backbone.weights.label}) without source classes")
    network = _whole(backbone)
    name = f"{backbone.label} with its classifier"
    load_into(network, fetch_weights(backbone), name=name, head_names=_AUXILIARY)
    network.eval()
    return _proved(network, backbone)


def _whole(backbone: Backbone) -> Any:
    """Build a network with the classifier it was published with."""
    name = built_name(backbone.name)
    try:
        with without_draws():
            if name.startswith("torchvision/"):
                return whole_torchvision(name.removeprefix("torchvision/"))
            from timm.models import create_model

            from stages.vision import bn_inception, nasnet_mobile  # noqa: F401 - timm knows them once imported

            return create_model(name, pretrained=False)
    except (RuntimeError, TypeError, ValueError, AssertionError) as problem:
        raise BackboneError(f"{name} cannot be built with its classifier: {problem}") from problem


def _proved(network: nn.Module, backbone: Backbone) -> SourceHead:
    """Return the last linear layer, once it has given the network's own answer to an image of noise."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, out: seen.update({module: (inputs[0], out)}))
    side = backbone.preprocessing.size
    with seeded(0), torch.inference_mode():
        logits = network(torch.rand(1, 3, side, side))
    for layer in reversed(layers):
        features, own = seen.get(layer, (logits, logits[:, :0]))
        reads = features.shape == (1, backbone.dimension) and own.shape == logits.shape
        if reads and (own - logits).abs().max() <= CLOSE * logits.abs().max():
            weight = layer.weight.detach().numpy()
            bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().numpy()
            return SourceHead(weight, bias)
    raise WeightsError(f"{backbone.label}: its last layer does not read the penultimate features alone")
