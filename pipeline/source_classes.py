"""What a study's backbones take images for: the source classes of their weights, from cached features."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from stages.records import Backbone

if TYPE_CHECKING:
    from stages.vision.source_head import SourceHead


@dataclass
class SourceClasses:
    """The last layers of backbones, each read when first asked for.

    Parameters
    ----------
    backbones : mapping of str to Backbone
        By label.
    """

    backbones: Mapping[str, Backbone]
    _heads: dict[str, SourceHead | str] = field(default_factory=dict)

    def at_hand(self, label: str) -> bool:
        """Whether there is something to read a last layer from: trained weights on this machine, and torch."""
        backbone = self.backbones[label]
        known = backbone.weights.sha256 is not None and backbone.weights.kind not in ("random", "cached")
        return known and importlib.util.find_spec("torch") is not None

    def probabilities(self, label: str, features: NDArray[Any]) -> tuple[NDArray[Any] | None, str]:
        """Return (n, Z) probabilities for (n, d) features; None and the reason where there are none."""
        if not self.at_hand(label):
            return None, "needs the weights' own classifier: trained weights on this machine, and torch"
        if label not in self._heads:
            self._heads[label] = self._read(label)
        head = self._heads[label]
        if isinstance(head, str):
            return None, head
        if features.shape[1] != head.weight.shape[1]:
            wanted, given = head.weight.shape[1], features.shape[1]
            return None, f"the weights' own classifier reads {wanted} features, the cache has {given}"
        return head.probabilities(features), ""

    def _read(self, label: str) -> SourceHead | str:
        """Read a last layer, or say why it cannot be had."""
        from stages.errors import BackboneError, WeightsError
        from stages.vision.source_head import source_head

        try:
            return source_head(self.backbones[label])
        except (BackboneError, WeightsError) as error:
            return str(error)
