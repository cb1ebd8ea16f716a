"""Switches of source-task training that only change features: batch-norm scale and auxiliary heads.

Label smoothing and dropout are parts of every recipe (protocol, "Other experiments", Regularisation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import BackboneError
from stages.paper_backbones import built_name
from stages.records import SourceSwitches
from stages.train.auxiliary import auxiliary_places

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class AuxiliaryHead(nn.Module):
    """A small classifier half way through a network: Szegedy et al. 2015, "Going deeper with convolutions".

    Pooling is adaptive, to 4 x 4, so that inputs of every size fit (ours: theirs averages 5 x 5 at stride 3).

    Parameters
    ----------
    channels : int
        Of the features that it reads.
    n_classes : int
    dropout : float
        As before the main classifier.
    """

    def __init__(self, channels: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm = nn.BatchNorm2d(128)
        self.hidden = nn.Linear(128 * 16, 1024)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(1024, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(n, channels, h, w) -> logits (n, K)."""
        pooled = functional.adaptive_avg_pool2d(features, 4)
        seen = functional.relu(self.norm(self.convolution(pooled)))
        hidden = functional.relu(self.hidden(seen.flatten(1)))
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


class AuxiliaryHeads(nn.Module):
    """Heads that read a network's inner features while it trains; they are no part of its weights file.

    Parameters
    ----------
    body : torch.nn.Module
        The network; its forward passes are listened to.
    name : str
        The backbone's.
    n_classes : int
    size : int
        Side of the input, pixels.
    dropout : float
    """

    def __init__(self, body: nn.Module, name: str, n_classes: int, *, size: int, dropout: float) -> None:
        super().__init__()
        self._heard: dict[str, Tensor] = {}
        self._measures = True
        places = auxiliary_places(built_name(name))
        if not places:
            raise BackboneError(f"{name} has no auxiliary head: leave auxiliary_head out")
        for place in places:
            body.get_submodule(place).register_forward_hook(self._listener(place))
        with torch.inference_mode():
            body(torch.zeros(1, 3, size, size))
        self._places, self._measures = places, False
        channels = [self._heard.pop(place).shape[1] for place in places]
        self.heads = nn.ModuleList(AuxiliaryHead(c, n_classes, dropout) for c in channels)

    def _listener(self, place: str) -> Callable[[nn.Module, object, Tensor], None]:
        """Return the hook that keeps what one place gives; while a network is scored nobody asks for it."""

        def keep(module: nn.Module, _inputs: object, output: Tensor) -> None:
            if module.training or self._measures:
                self._heard[place] = output

        return keep

    def logits(self) -> Iterator[Tensor]:
        """Yield each head's logits for the pass that the body has just made."""
        for place, head in zip(self._places, self.heads, strict=True):
            yield head(self._heard.pop(place))


def freeze_scales(network: nn.Module) -> None:
    """Fix every batch norm's scale at 1, in place: it is neither trained nor, as in some networks, begun at 0."""
    for module in network.modules():
        if isinstance(module, _BATCH_NORMS) and module.affine:
            nn.init.ones_(module.weight)
            module.weight.requires_grad_(False)


def apply_switches(network: nn.Module, switches: SourceSwitches) -> None:
    """Do to a new network what the switches say of its layers."""
    if not switches.batch_norm_scale:
        freeze_scales(network)
