"""What timm's networks have behind their features: pooling, dropout, a classifier, and the methods for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from timm.layers.classifier import create_classifier
from torch import Tensor, nn
from torch.nn import functional


class Headed(nn.Module, ABC):
    """Base of the networks written here; they give ``forward_features`` and call ``add_head`` once built."""

    num_features: int
    """Channels of the last feature map."""
    head_hidden_size: int
    """Dimension of the penultimate features."""
    global_pool: Any
    last_linear: nn.Module
    drop_rate: float

    def add_head(self, channels: int, num_classes: int, global_pool: str, drop_rate: float) -> None:
        """Draw the convolutions, and put pooling and classifier behind ``channels`` channels.

        Convolutions are drawn after He et al. 2015 (ours; a batch norm behind each makes the scale immaterial).
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.num_features = channels
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.last_linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network a new last layer; 0 classes = none."""
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        pool, linear = create_classifier(self.num_features, num_classes, pool_type=pool_type)
        self.global_pool, self.last_linear = pool.train(self.training), linear.train(self.training)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, num_features, h', w')."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(n, num_features, h', w') -> (n, head_hidden_size) with ``pre_logits``, else (n, num_classes)."""
        x = functional.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else cast("Tensor", self.last_linear(x))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, num_classes); penultimate features where there are no classes."""
        return self.forward_head(self.forward_features(x))
