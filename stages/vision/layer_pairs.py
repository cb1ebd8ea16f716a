"""Which layers of a network read the very output of which: seen in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

Which = Callable[[nn.Module], bool]


def layer_pairs(network: nn.Module, images: Tensor, *, makes: Which, reads: Which) -> list[tuple[str, str]]:
    """Run a network once and pair layers where one reads what another has made, unchanged in between.

    What else a network does with an output no trace of modules can see: whoever merges a pair compares the
    features afterwards.

    Parameters
    ----------
    network : torch.nn.Module
    images : Tensor
        What it is run on.
    makes, reads : callable
        Tell the layers that may be first and second in a pair.

    Returns
    -------
    list of (str, str)
        Names of both; layers that ran more than once are left out.
    """
    made: dict[int, tuple[str, Tensor, int]] = {}  # holding the tensors keeps their ids unique
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            made[id(out)] = name, out, out._version

        return hook

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            maker, _, version = made.get(id(inputs[0]) if inputs else 0, ("", None, -1))
            if inputs and version == inputs[0]._version:  # a residual added in place would show here
                pairs.append((maker, name))

        return hook

    with ExitStack() as stack, torch.inference_mode(False), torch.no_grad():  # versions are counted there
        for name, module in network.named_modules():
            if makes(module):
                stack.callback(module.register_forward_hook(after(name)).remove)
            elif reads(module):
                stack.callback(module.register_forward_pre_hook(before(name)).remove)
        network(images)
    return [(maker, reader) for maker, reader in pairs if calls[maker] == calls[reader] == 1]


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put another layer in the place of one."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)
