"""A fitted probe as a file: safetensors for the numbers, its header for what they mean.

The tensors are named and shaped as the classifier layer of a network, ``weight`` (K, d) and ``bias`` (K,),
so that torch and timm load them as they are. Two classes have one row: its sigmoid is the probability of
the second class.
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
        """Return the state dict of a linear classifier layer with K outputs, as arrays.

        Two classes become two rows, so that the layer's softmax gives the probe's probabilities.
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
    """
    from safetensors import SafetensorError, safe_open

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
    class_names = tuple(json.loads(header.pop("class_names")))
    multi_label = bool(json.loads(header.pop("multi_label")))
    return SavedProbe(weight, bias, class_names, multi_label, header)
