"""The version of how trainings are done, by what it makes a difference to."""

from __future__ import annotations

from stages.paper_backbones import built_name

_FIRST = 1
"""Grows when the same ingredients would train to another result."""
_DECAYING_ATTENTION = 2
"""Weight decay reaches the projections inside ``torch.nn.MultiheadAttention``."""
_WITH_SUCH_ATTENTION = ("torchvision/vit_",)
"""Of the networks that are known by name these alone have it; one's own are not built to be asked."""


def train_recipe(backbone: str, weight_decay: float, *, decay_everything: bool = False) -> int:
    """Return the version that the spec of a training names: a change makes stale what it changes, and no more.

    Examples
    --------
    >>> train_recipe("resnet50.a1_in1k", 1e-4), train_recipe("torchvision/vit_b_16", 1e-4)
    (1, 2)
    """
    reached = weight_decay > 0 and not decay_everything
    return (
        _DECAYING_ATTENTION if reached and built_name(backbone).startswith(_WITH_SUCH_ATTENTION) else _FIRST
    )
