"""Fold batch norms into the convolutions before them, for networks that only ever run forward."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from stages.vision.layer_pairs import layer_pairs, replace_layer

TOLERANCE = 1e-5
"""Largest deviation that a rewritten network may show, relative to the largest feature."""


def fold_batch_norms(network: nn.Module, size: int) -> nn.Module:
    """Return an equal network with fewer operations, or the network itself where folding changes features.

    A batch norm is folded where, in one traced forward pass, its input is the very output of a convolution
    and both ran once. The folded network is compared with the original on random images, and dropped if it
    deviates.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on the CPU; left as it is.
    size : int
        Side of the input, pixels.

    Returns
    -------
    torch.nn.Module
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    pairs = layer_pairs(network, images[:1], makes=_is_convolution, reads=_is_norm)
    if not pairs:
        return network
    folded = copy.deepcopy(network)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm)
    try:
        with torch.inference_mode():
            before, after = network(images), folded(images)
    except (AttributeError, TypeError):  # a network that reads attributes of its batch norms
        return network
    return folded if are_equal(before, after) else network


def are_equal(before: Tensor, after: Tensor) -> bool:
    """Whether two networks gave the same features but for rounding."""
    return bool((before - after).abs().max() <= TOLERANCE * before.abs().max())


def _is_convolution(module: nn.Module) -> bool:
    """Whether a layer may have a batch norm folded into it."""
    return isinstance(module, nn.Conv2d)


def _is_norm(module: nn.Module) -> bool:
    """Whether a layer is a batch norm with statistics of its own."""
    return isinstance(module, nn.BatchNorm2d) and bool(module.track_running_stats)


@torch.no_grad()
def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> None:
    """Scale one convolution by its batch norm, and put what else the norm's module does in its place."""
    convolution = network.get_submodule(convolution_name)
    norm = network.get_submodule(norm_name)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    convolution.weight.copy_(convolution.weight.double() * scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(shift.to(convolution.weight.dtype))
    # timm's norms carry their activation with them.
    rest = [m for n in ("drop", "act") if isinstance(m := getattr(norm, n, None), nn.Module)]
    replace_layer(network, norm_name, nn.Sequential(*rest) if rest else nn.Identity())
