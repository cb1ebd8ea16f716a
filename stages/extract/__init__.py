"""Penultimate features of one split through one backbone.

Importing this package loads no torch: :mod:`stages.extract.recipe` is all that planning needs, and
:func:`extract_features` is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.errors import MissingExtraError
from stages.extract.recipe import RECIPE_VERSION, coordinates, ingredients

if TYPE_CHECKING:
    from stages.extract.features import extract_features

__all__ = ["RECIPE_VERSION", "coordinates", "extract_features", "ingredients"]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name != "extract_features":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from stages.extract.features import extract_features
    except ModuleNotFoundError as problem:
        raise MissingExtraError(problem.name or "torch", "vision") from problem
    return extract_features
