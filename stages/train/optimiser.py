"""The optimiser of the protocol: Nesterov SGD, cosine to zero, decay divided by the learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

_DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Linear layers that ``nn.MultiheadAttention`` holds as bare parameters."""
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_RATES = ("p", "drop_prob", "drop_rate", "prob")
"""What torch, torchvision and timm call the probability of dropping something."""


def cosine(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: peak at step 0, zero at step ``steps``, no restarts (grade H).

    Examples
    --------
    >>> cosine(0, 10, 0.1), round(cosine(5, 10, 0.1), 12), cosine(10, 10, 0.1)
    (0.1, 0.05, 0.0)
    """
    return 0.5 * peak * (1.0 + math.cos(math.pi * step / steps))


def batch_norm_momentum(
    n_train: int, batch_size: int, micro_batches: int = 1, chosen: float | None = None
) -> float:
    """Return torch's batch-norm momentum for a set of ``n_train`` images.

    ``chosen``, else min(10/s, 0.1) with s = n_train / batch_size steps an epoch (grade M), which is
    TensorFlow's max(1 - 10/s, 0.9). With k micro-batches a step 1 - (1 - m)^(1/k): k updates forget as
    much as one.

    Examples
    --------
    >>> batch_norm_momentum(75_750, 256) == 10 / (75_750 / 256)
    True
    >>> batch_norm_momentum(1_000, 256)
    0.1
    """
    momentum = min(10 * batch_size / n_train, 0.1) if chosen is None else chosen
    return momentum if micro_batches == 1 else 1.0 - (1.0 - momentum) ** (1.0 / micro_batches)


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Give every batch norm of the network one momentum, in place."""
    for module in network.modules():
        if isinstance(module, _BATCH_NORMS):
            module.momentum = momentum


def parameter_groups(network: nn.Module, decay: float, *, everything: bool = False) -> list[dict[str, Any]]:
    """Split parameters: weights of convolutions and linear layers decay, all else does not (grade L).

    Parameters
    ----------
    network : torch.nn.Module
        Parameters that want no gradient are left out.
    decay : float
        The optimiser's weight decay, c / learning_rate.
    everything : bool
        Whether biases and norms decay too.
    """
    wanted = [p for p in network.parameters() if p.requires_grad]
    if everything:
        return [{"params": wanted, "weight_decay": decay}]
    decayed = {id(m.weight) for m in network.modules() if isinstance(m, _DECAYED)}
    attention = (m for m in network.modules() if isinstance(m, nn.MultiheadAttention))
    decayed |= {id(w) for m in attention for name in _ATTENTION if (w := getattr(m, name)) is not None}
    return [
        {"params": [p for p in wanted if id(p) in decayed], "weight_decay": decay},
        {"params": [p for p in wanted if id(p) not in decayed], "weight_decay": 0.0},
    ]


def build_optimiser(
    network: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    decay_everything: bool = False,
) -> torch.optim.SGD:
    """Build Nesterov SGD; ``weight_decay`` is the grid's c and enters as c / learning_rate * w (grade M)."""
    groups = parameter_groups(network, weight_decay / learning_rate, everything=decay_everything)
    cuda = any(p.is_cuda for p in network.parameters())
    return torch.optim.SGD(
        groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, foreach=True if cuda else None
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def switch_off_dropout(network: nn.Module) -> None:
    """Set every dropout and drop-path probability to zero, in place: the protocol trains without them."""
    for module in network.modules():
        drops = isinstance(module, _DROPOUTS) or "Drop" in type(module).__name__
        for name in _RATES if drops or type(module).__name__ == "StochasticDepth" else ("drop_rate",):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
