"""Training jobs: fine-tuning and training from scratch by the paper's protocol.

Importing this package loads no torch: :mod:`stages.train.grid` is all that planning needs, and the two
regimes are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.errors import MissingExtraError
from stages.train.grid import GridPoint, Selection, grid, log_spaced, select

if TYPE_CHECKING:
    from stages.train.checkpoint import discard_checkpoint
    from stages.train.regimes import fine_tune, train_from_scratch

__all__ = [
    "GridPoint",
    "Selection",
    "discard_checkpoint",
    "fine_tune",
    "grid",
    "log_spaced",
    "select",
    "train_from_scratch",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name not in ("discard_checkpoint", "fine_tune", "train_from_scratch"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from stages.train import checkpoint, regimes
    except ModuleNotFoundError as problem:
        raise MissingExtraError(problem.name or "torch", "vision") from problem
    return getattr(checkpoint if name == "discard_checkpoint" else regimes, name)
