"""A fitted probe as a file: safetensors for the numbers, its header for what they mean.

The tensors are named and shaped as the classifier layer of a network, ``weight`` (K, d) and ``bias`` (K,), in
float64. Two classes have one row: its sigmoid is the probability of the second class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import ProbeError
from stages.probe.predict import logits_of, probabilities_of
from stages.records import ProbeResult

FORMAT = "penultimate-probe-1"


@dataclass(frozen=True)
class SavedProbe:
    """A probe read back."""

    coefficients: NDArray[np.float64]
    """(K, d), or (1, d) for two classes."""
    intercepts: NDArray[np.float64]
    """(K,) or (1,)."""
    class_names: tuple[str, ...]
    multi_label: bool
    metadata: Mapping[str, str]
    """What the writer said of backbone, features and selection."""

    def logits(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return (n, K) logits of (n, d) features; two classes: zero, and the logit of the second.

        Raises
        ------
        ProbeError
            The features have another dimension than the probe.
        """
        if features.ndim != 2 or features.shape[1] != self.coefficients.shape[1]:
            raise ProbeError(
                f"features of shape {features.shape} for a probe of dimension {self.coefficients.shape[1]}; "
                "use the backbone that the probe was fitted on"
            )
        return logits_of(features, self.coefficients, self.intercepts, self.multi_label)

    def probabilities(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return (n, K) probabilities of (n, d) features: softmax, or one sigmoid a label."""
        return probabilities_of(self.logits(features), self.multi_label)

    def head_state(self, prefix: str = "") -> dict[str, NDArray[np.float32]]:
        """Return the state dict of a linear classifier layer with K outputs, as numpy arrays.

        Torch takes them through ``torch.from_numpy``; nothing here imports it. Two classes become two rows, so
        that the layer's softmax gives the probe's probabilities.
        """
        weight, bias = self.coefficients, self.intercepts
        if len(bias) == 1 and not self.multi_label:
            weight = np.concatenate([np.zeros_like(weight), weight])
            bias = np.concatenate([np.zeros_like(bias), bias])
        return {f"{prefix}weight": weight.astype(np.float32), f"{prefix}bias": bias.astype(np.float32)}


def probe_bytes(result: ProbeResult, metadata: Mapping[str, str]) -> bytes:
    """Return the content of a probe's file.

    Parameters
    ----------
    result : ProbeResult
    metadata : mapping of str to str
        Kept in the header: which backbone and features the probe belongs to.
    """
    from safetensors.numpy import save

    header = {
        **metadata,
        "format": FORMAT,
        "class_names": json.dumps(list(result.class_names)),
        "multi_label": json.dumps(result.multi_label),
    }
    tensors = {
        "weight": np.ascontiguousarray(result.coefficients),
        "bias": np.ascontiguousarray(result.intercepts),
    }
    return bytes(save(tensors, metadata=header))


def load_probe(path: Path | str) -> SavedProbe:
    """Read a probe's file.

    Raises
    ------
    ProbeError
        It is not there, or it is no probe of this tool.

    Examples
    --------
    >>> import tempfile
    >>> result = ProbeResult(
    ...     "top_1", 1.0, 0.1, (), "by hand", np.ones((1, 3)), np.zeros(1), np.zeros((0, 2), np.float32),
    ...     2, 0, 0.0, class_names=("cat", "dog"),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "probe.safetensors"
    ...     _ = path.write_bytes(probe_bytes(result, {"backbone": "lite0"}))
    ...     load_probe(path).head_state("fc.")["fc.weight"].shape
    (2, 3)
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise ProbeError(f"{path}: is a folder; name one of its .safetensors files")
    try:
        with safe_open(str(path), framework="numpy") as file:
            header = dict(file.metadata() or {})
            if header.get("format") != FORMAT:
                raise ProbeError(f"{path}: no probe of this tool (format {header.get('format')!r})")
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
    except FileNotFoundError:
        raise ProbeError(f"{path}: no such file; probes lie in OUTPUT/results/linear_probe") from None
    except (SafetensorError, OSError) as error:
        raise ProbeError(f"{path}: not a safetensors file ({error}); name a probe's .safetensors") from error
    try:
        class_names = tuple(str(name) for name in json.loads(header.pop("class_names")))
        multi_label = bool(json.loads(header.pop("multi_label")))
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"{path}: its header is damaged ({error}); fit the probe again") from error
    _check_leaves(path, weight, bias, 1 if len(class_names) == 2 and not multi_label else len(class_names))
    return SavedProbe(weight, bias, class_names, multi_label, header)


def _check_leaves(path: Path | str, weight: NDArray[Any], bias: NDArray[Any], rows: int) -> None:
    """Raise `ProbeError` unless both arrays are of the type and shape that the classes ask for."""
    fits = weight.ndim == 2 and len(weight) == rows and bias.shape == (rows,)
    if not fits or weight.dtype != np.float64 or bias.dtype != np.float64:
        raise ProbeError(
            f"{path}: weight {weight.shape} {weight.dtype} and bias {bias.shape} {bias.dtype} do not fit "
            f"{rows} outputs; fit the probe again"
        )
