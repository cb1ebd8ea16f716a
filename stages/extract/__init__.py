"""Penultimate features of one split through one backbone, or through many that want the same pixels.

Importing this package loads no torch: :mod:`stages.extract.recipe` is all that planning needs, and what runs
networks is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stages.errors import MissingExtraError
from stages.extract.recipe import RECIPE_VERSION, coordinates, ingredients

if TYPE_CHECKING:
    from stages.extract.features import extract_features
    from stages.extract.forward import prepare
    from stages.extract.together import extract_together

__all__ = [
    "RECIPE_VERSION",
    "coordinates",
    "extract_features",
    "extract_together",
    "ingredients",
    "prepare",
]

_NEED_TORCH = {"extract_features": "features", "extract_together": "together", "prepare": "forward"}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
    except ModuleNotFoundError as problem:
        raise MissingExtraError(problem.name or "torch", "vision") from problem
