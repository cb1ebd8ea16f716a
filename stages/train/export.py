"""Trained weights as a file that timm loads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from cache.atomic import write_file
from stages.paper_backbones import built_name
from stages.train.job import TrainJob
from stages.train.model import Classifier

FILE = "weights.safetensors"


def write_weights(folder: Path, network: torch.nn.Module, job: TrainJob) -> None:
    """Write the trained network, body and classifier, as safetensors.

    Names are those of ``timm.create_model(NAME, num_classes=K)`` where the backbone is timm's with its own
    pooling; else the classifier is called "classifier".
    """
    assert isinstance(network, Classifier)
    body = {name: tensor.detach().cpu().contiguous() for name, tensor in network.body.state_dict().items()}
    weight, bias = network.classifier.weight.detach().cpu(), network.classifier.bias.detach().cpu()
    head = _head(job, body, weight, bias)
    metadata = {
        "format": "pt",
        "architecture": built_name(job.backbone.name),
        "regime": job.regime,
        "dataset": job.dataset.name,
        "num_classes": str(len(job.dataset.class_names)),
        "image_size": str(job.preprocessing.size),
    }
    write_file(folder / FILE, save(body | head, metadata))


def _head(job: TrainJob, body: dict[str, Tensor], weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return the classifier's tensors under the names and shapes that timm gives them."""
    plain = {"classifier.weight": weight.contiguous(), "classifier.bias": bias.contiguous()}
    name = built_name(job.backbone.name)
    if name.startswith(("python:", "torchvision/")) or job.backbone.pooling:
        return plain
    from timm.models import create_model

    with torch.device("meta"):
        wanted = create_model(name, num_classes=len(job.dataset.class_names)).state_dict()
    missing = sorted(name for name in wanted if name not in body)
    matrices = [name for name in missing if name.endswith(".weight")]
    vectors = [name for name in missing if name.endswith(".bias")]
    if len(missing) != 2 or len(matrices) != 1 or len(vectors) != 1:
        return plain
    shape = wanted[matrices[0]].shape
    if shape.numel() != weight.numel():
        return plain
    return {matrices[0]: weight.reshape(shape).contiguous(), vectors[0]: bias.contiguous()}
