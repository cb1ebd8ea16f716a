"""Build networks without their head: timm's, torchvision's, one's own.

The forward pass of every network that is built here gives penultimate features (n, d).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stages.errors import BackboneError
from stages.paper_backbones import built_name
from stages.records import Backbone
from stages.vision.fetch import fetch_weights
from stages.vision.weights import load_into

_TORCHVISION_HEADS = ("fc", "classifier", "heads", "head")
_HEADS_OF_PORTS = ("last_linear", "AuxLogits", "classifier")
"""What the public pretrained-models ports call classifiers, and what weights kept by a training of ours do, whatever
the network."""
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    # The published weights expect the input transform; auxiliary classifiers are no part of a backbone.
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
    # The only published weights take larger inputs than the network's default.
    "vit_h_14": {"image_size": 518},
}


def build_network(backbone: Backbone, *, image_size: int | None = None) -> nn.Module:
    """Build a backbone's network without head, with its weights, in evaluation mode on the CPU.

    Parameters
    ----------
    backbone : Backbone
        Pretrained weights that are not on this machine yet are downloaded.
    image_size : int or None
        Side of the input in pixels where it is not the preprocessing's.

    Returns
    -------
    torch.nn.Module
        (n, 3, size, size) float32 -> (n, d) penultimate features, as timm's ``num_classes=0`` gives them.

    Raises
    ------
    WeightsError
        The weights cannot be had, read, or do not fit.
    BackboneError
        The network cannot be built, or its output is no vector of the dimension expected.
    """
    random = backbone.weights.kind == "random"
    own = backbone.name.startswith("python:") and backbone.weights.kind == "pretrained"
    published = not backbone.name.startswith("python:")
    with seeded(backbone.weights.seed) if random or not published else without_draws():
        network, heads = build_bare(backbone.name, pooling=backbone.pooling)
    if not random and not own:
        path = fetch_weights(backbone)
        load_into(network, path, name=backbone.label, head_names=heads)
    network.eval()
    _check_dimension(network, backbone, image_size or backbone.preprocessing.size)
    return network


def build_bare(name: str, *, pooling: str | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a network without head and without loading weights; return it with the names of its head."""
    name = built_name(name)
    if name.startswith("python:"):
        return build_own(name), ("fc", "classifier", "head")
    if name.startswith("torchvision/"):
        network = build_torchvision(name.removeprefix("torchvision/"))
        return network, (*network.removed_heads, "aux1", "aux2", *_HEADS_OF_PORTS)  # type: ignore[misc]
    return _build_timm(name, pooling)


def _build_timm(name: str, pooling: str | None) -> tuple[nn.Module, tuple[str, ...]]:
    """Build one of timm's networks with ``num_classes=0``."""
    from timm.models import create_model

    from stages.vision import bn_inception, nasnet_mobile  # noqa: F401 - timm knows them once imported

    options: dict[str, Any] = {} if pooling is None else {"global_pool": pooling}
    try:
        network: Any = create_model(name, pretrained=False, num_classes=0, **options)
    except (RuntimeError, TypeError, ValueError, AssertionError) as problem:
        chosen = f" with pooling {pooling!r}" if pooling else ""
        raise BackboneError(f"{name}: timm cannot build it{chosen}: {_one_line(problem)}") from problem
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return network, (*heads, *_HEADS_OF_PORTS)


def whole_torchvision(architecture: str) -> nn.Module:
    """Build one of torchvision's classification networks as its weights were published."""
    import torchvision

    options = _TORCHVISION_OPTIONS.get(architecture, {})
    try:
        network: nn.Module = torchvision.models.get_model(architecture, weights=None, **options)
    except ValueError as problem:
        raise BackboneError(f"torchvision has no classification network {architecture!r}") from problem
    return network


def build_torchvision(architecture: str) -> nn.Module:
    """Build one of torchvision's classification networks, its last classifier layer taken out.

    The name of what was taken out stands in the attribute ``removed_heads``.
    """
    network: Any = whole_torchvision(architecture)
    network.removed_heads = (_remove_head(network),)
    built: nn.Module = network
    return built


def _remove_head(network: nn.Module) -> str:
    """Replace the last classifier layer by the identity and return its name."""
    top = next(n for n in _TORCHVISION_HEADS if hasattr(network, n))
    head = network.get_submodule(top)
    layers = [(n, m) for n, m in head.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    inside, layer = layers[-1]
    if isinstance(layer, nn.Conv2d):
        # SqueezeNet classifies by a convolution: the penultimate features are what it reads, averaged.
        setattr(network, top, nn.AdaptiveAvgPool2d(1))
        return f"{top}.{inside}"
    name = f"{top}.{inside}" if inside else top
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return name


def build_own(name: str) -> nn.Module:
    """Import MODULE and call FUNCTION of "python:MODULE:FUNCTION"; this runs the user's code.

    MODULE is looked for where Python looks, and in the current folder.
    """
    _, module_name, function_name = name.split(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module_name), function_name)
        network = function()
    except (ImportError, AttributeError, TypeError) as problem:
        raise BackboneError(
            f"{name}: cannot be imported and called without arguments: {problem}"
        ) from problem
    finally:
        sys.path.remove(here)
    if not isinstance(network, nn.Module):
        raise BackboneError(f"{name}: returned {type(network).__name__}, not a torch.nn.Module")
    return network


def _check_dimension(network: nn.Module, backbone: Backbone, size: int) -> None:
    """Run one empty image through the network: its output must be a vector of the dimension planned."""
    try:
        with torch.inference_mode():
            out = network(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as problem:
        raise BackboneError(
            f"{backbone.label} cannot take an input of {size} pixels: {_one_line(problem)}"
        ) from problem
    shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
    expected = backbone.dimension or (shape[-1] if isinstance(shape, tuple) else 0)
    if shape != (1, expected):
        raise BackboneError(
            f"{backbone.label} gives {shape} for one image, not (1, {expected}): "
            "a backbone returns one vector per image; try another pooling"
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator inside, leave it untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class without_draws(TorchFunctionMode):  # noqa: N801 - used like a function
    """Fill with a constant instead of random numbers what a weights file is about to overwrite.

    Safe because loading refuses a file that leaves a parameter unset. Filled, because initialisers that
    draw until all numbers lie within bounds would never end on memory that was left as it was.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace a draw by its middle."""
        if func is torch.Tensor.normal_:
            return args[0].fill_(args[1] if len(args) > 1 else (kwargs or {}).get("mean", 0.0))
        if func is torch.Tensor.uniform_:
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


def _one_line(problem: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(problem).splitlines() or [type(problem).__name__])[0]
