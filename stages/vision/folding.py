"""Fold batch norms into the convolutions before them, for networks that only ever run forward."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
"""Largest deviation that folding may cause, relative to the largest feature."""


def fold_batch_norms(network: nn.Module, size: int) -> nn.Module:
    """Return an equal network with fewer operations, or the network itself where folding changes features.

    A batch norm is folded where, in one traced forward pass, its input is the very output of a convolution
    and both ran once. What else a network does with that output no trace of modules can see, therefore the
    folded network is compared with the original on random images and dropped if it deviates.

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
    pairs = _foldable_pairs(network, images[:1])
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
    deviation = (before - after).abs().max()
    return folded if bool(deviation <= TOLERANCE * before.abs().max()) else network


def _foldable_pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Run the network once and pair each convolution with the batch norm that reads its output."""
    producer: dict[int, str] = {}
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []
    alive: list[Tensor] = []  # keeps ids unique while the pass runs

    def after_convolution(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            producer[id(out)] = name
            alive.append(out)

        return hook

    def before_norm(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            source = producer.get(id(inputs[0]))
            if source is not None:
                pairs.append((source, name))

        return hook

    handles: list[Any] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_convolution(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return [(c, n) for c, n in pairs if calls[c] == calls[n] == 1]


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
    parent, _, child = norm_name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Sequential(*rest) if rest else nn.Identity())
