"""A backbone with a new classifier, ready to be trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import BackboneError
from stages.records import NO_SWITCHES, Backbone, SourceSwitches, TrainRecipe, Weights
from stages.train.optimiser import switch_off_dropout
from stages.train.source import AuxiliaryHeads, apply_switches
from stages.vision.networks import build_network, seeded
from stages.vision.weight_files import locate_weights

IGNORED = -1
"""Label of an image-label pair that neither loss nor ranking sees."""


class Classifier(nn.Module):
    """Penultimate features, then one linear layer.

    The layer's weights are drawn from a normal distribution, biases are zero (ours; the paper does not say).

    Parameters
    ----------
    body : torch.nn.Module
        (n, 3, s, s) -> (n, d).
    dimension : int
        d.
    n_classes : int
        K.
    std : float
        Standard deviation of the layer's weights.
    dropout : float
        Probability of dropping a feature while training.
    """

    def __init__(
        self, body: nn.Module, dimension: int, n_classes: int, *, std: float, dropout: float
    ) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dimension, n_classes)
        nn.init.normal_(self.classifier.weight, std=std)
        nn.init.zeros_(self.classifier.bias)
        self.auxiliary: AuxiliaryHeads | None = None
        """Of source-task training; they read the body's last pass."""
        self.auxiliary_weight = 0.0

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """Return the loss of a pass that was just made: the classifier's, and the auxiliary heads' by weight."""
        loss = loss_of(logits, labels, label_smoothing)
        if self.auxiliary is not None:
            for other in self.auxiliary.logits():
                loss = loss + self.auxiliary_weight * loss_of(other, labels, label_smoothing)
        return loss

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, K) for normalised images (n, 3, s, s)."""
        logits: Tensor = self.classifier(self.dropout(self.body(images)))
        return logits


def build_classifier(
    backbone: Backbone,
    n_classes: int,
    *,
    seed: int,
    image_size: int,
    from_scratch: bool,
    recipe: TrainRecipe,
    switches: SourceSwitches = NO_SWITCHES,
) -> Classifier:
    """Build the network of a job; ``seed`` draws the classifier, and from scratch everything.

    Auxiliary heads are drawn last: the rest of the network is the same with and without them.

    Raises
    ------
    BackboneError, WeightsError
        As :func:`stages.vision.networks.build_network`.
    """
    if from_scratch:
        backbone = _forget(backbone, seed)
    body = build_network(backbone, image_size=image_size)
    if from_scratch and backbone.name.startswith("python:"):
        _reinitialise(body, backbone.name, seed)
    switch_off_dropout(body)
    dimension = backbone.dimension or _dimension(body, image_size)
    with seeded(seed):
        network = Classifier(body, dimension, n_classes, std=recipe.classifier_std, dropout=recipe.dropout)
        if switches.auxiliary_head:
            heads = AuxiliaryHeads(body, backbone.name, n_classes, size=image_size, dropout=recipe.dropout)
            network.auxiliary, network.auxiliary_weight = heads, switches.auxiliary_weight
    apply_switches(network, switches)
    return network


def _forget(backbone: Backbone, seed: int) -> Backbone:
    """Return the backbone with random weights."""
    if backbone.name.startswith("python:"):
        return replace(backbone, weights=Weights(kind="pretrained", label="pretrained"))
    return replace(backbone, weights=locate_weights("random", seed=seed))


def _reinitialise(network: nn.Module, name: str, seed: int) -> None:
    """Draw one's own network anew; every parameter must belong to a layer that knows how."""
    with seeded(seed):
        for path, module in network.named_modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise BackboneError(
                    f"{name}: {path or 'the network'} ({type(module).__name__}) holds parameters but has no "
                    "reset_parameters: add one, or leave from_scratch out"
                )


def _dimension(body: nn.Module, size: int) -> int:
    """Ask a network for its dimension."""
    with torch.inference_mode():
        return int(body(torch.zeros(1, 3, size, size)).shape[1])


def loss_of(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean loss over images.

    Single-label (n,) int64: cross-entropy. Multi-label (n, K) int8: binary cross-entropy summed over the
    labels (ours), pairs labelled -1 left out.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    wanted = labels != IGNORED
    losses = functional.binary_cross_entropy_with_logits(
        logits, labels.clamp_min(0).to(logits), reduction="none"
    )
    return (losses * wanted).sum() / len(labels)


def probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """Return softmax, or a sigmoid per label, in float32."""
    return logits.float().sigmoid() if multi_label else logits.float().softmax(dim=1)
