"""Read weights files and load them: every tensor of the network must be given, with its shape.

Files are read as tensors only (safetensors, or torch's format with ``weights_only``): no code in them runs.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.errors import WeightsError

State = Mapping[str, Tensor]

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_TIMM_FILTERS = (
    "checkpoint_filter_fn",
    "_filter_fn",
    "_filter_torchvision_pretrained",
    "pretrained_filter_fn",
    "checkpoint_filter_fn_encoder",
    "checkpoint_filter_fn_classifier",
)


@dataclass(frozen=True)
class Mismatch:
    """How a file differs from what a network wants."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shape: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.other_shape)

    def __str__(self) -> str:
        parts = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of other shape", self.other_shape),
        )
        return "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in parts if names)


def load_into(network: nn.Module, path: Path, *, name: str, head_names: tuple[str, ...] = ()) -> None:
    """Load a weights file into a network in place.

    Key names may be the network's own, those that timm itself converts from, those of efficientnet-pytorch
    style packages, or those of BN-Inception's Caffe release. The classifier's tensors (``head_names``) are dropped.

    Raises
    ------
    WeightsError
        The file cannot be read, or tensors are missing, unexpected or of another shape: how many, and which.
    """
    state = read_state(path)
    wanted = network.state_dict()
    best: Mismatch | None = None
    for convert in _conversions(network):
        try:
            candidate = convert(state)
        except (KeyError, IndexError, RuntimeError, AttributeError, TypeError, ValueError):
            # A conversion written for another family's names; the names as they are get reported below.
            continue
        mismatch = compare(candidate, wanted, head_names)
        if not len(mismatch):
            network.load_state_dict({k: v for k, v in candidate.items() if k in wanted}, strict=False)
            return
        best = mismatch if best is None or len(mismatch) < len(best) else best
    raise WeightsError(
        f"{path} does not fit {name} ({len(wanted)} tensors): {best}; "
        "check that the file belongs to this architecture"
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors or from torch's format, tensors only.

    Raises
    ------
    WeightsError
        The file is no weights file, is damaged, or holds anything but tensors.
    """
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise WeightsError(
            f"{path} holds more than tensors, which would run code, or is damaged: save it as a state dict"
        ) from problem
    except Exception as problem:  # both readers raise their own kinds for damaged files
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise WeightsError(f"{path} cannot be read as weights ({reason}): fetch it again") from problem
    return _unwrap(loaded, path)


def _is_safetensors(path: Path) -> bool:
    """Tell the two formats apart by content: a safetensors header is JSON after eight bytes."""
    with path.open("rb") as file:
        return file.read(9)[8:9] == b"{"


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Find the state dict in a checkpoint and strip the prefix of parallel training."""
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path} is no state dict of tensors: save network.state_dict()")
    return {str(k).removeprefix("module."): v for k, v in loaded.items()}


def compare(state: State, wanted: State, head_names: tuple[str, ...]) -> Mismatch:
    """Compare a state dict with the one wanted; the head's tensors and step counters may differ."""
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in wanted and not _of_head(k, head_names)]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    return Mismatch(tuple(missing), tuple(extra), tuple(shapes))


def _of_head(key: str, head_names: tuple[str, ...]) -> bool:
    """Whether a tensor belongs to one of the classifier's modules."""
    return any(key.startswith(f"{head}.") for head in head_names)


def _conversions(network: nn.Module) -> Iterator[Callable[[State], State]]:
    """Yield the translations of key names, the plainest first."""
    yield lambda state: state
    yield lambda state: from_efficientnet_pytorch(state, network)
    module = sys.modules[type(network).__module__]
    for name in _TIMM_FILTERS if module.__name__.startswith(("timm.", "stages.vision.")) else ():
        if hasattr(module, name):
            function = getattr(module, name)
            yield lambda state, function=function: _call_filter(function, state, network)  # type: ignore[misc]


def _call_filter(function: Callable[..., State], state: State, network: nn.Module) -> State:
    """Call one of timm's own conversions, which take the network as a second argument or not."""
    try:
        return function(dict(state), network)
    except TypeError:
        return function(dict(state))


_PLAIN = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_EXCITE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}


def from_efficientnet_pytorch(state: State, network: nn.Module) -> State:
    """Translate the key names of efficientnet-pytorch style packages into timm's.

    Those packages number the blocks through; timm numbers them within stages.
    """
    keys = network.state_dict()
    places = sorted({(int(m[1]), int(m[2])) for k in keys if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", k))})
    expands = {int(m[1]) for k in state if (m := re.match(r"_blocks\.(\d+)\._expand_conv\.", k))}
    return {_translate(k, places, expands): v for k, v in state.items()}


def _translate(key: str, places: list[tuple[int, int]], expands: set[int]) -> str:
    """Translate one key name."""
    block = re.match(r"_blocks\.(\d+)\.(_[a-z0-9_]+)\.(.+)", key)
    if block is None:
        layer, _, leaf = key.partition(".")
        return f"{_PLAIN.get(layer, layer)}.{leaf}"
    number, layer, leaf = int(block[1]), block[2], block[3]
    names = _EXCITE | (_INVERTED if number in expands else _SEPARABLE)
    stage, place = places[number]
    return f"blocks.{stage}.{place}.{names.get(layer, layer)}.{leaf}"


def _some(names: tuple[str, ...]) -> str:
    """Name a few of many."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's tensors in the order of their names.

    For one's own network that brings its weights with it, where there is no file to hash.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
