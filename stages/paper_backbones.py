"""The paper's sixteen networks by name (``paper:``): what is built for each, and whose weights are public.

The architectures are the paper's to the last parameter. The public checkpoints are not: the paper trained all
sixteen alike, without label smoothing, dropout or auxiliary classifiers (protocol, "ImageNet training of the
16 networks", grade H), and public ones were each trained in a way of its own. Where several are public, the
one is taken whose training is nearest to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import BackboneError
from stages.names import did_you_mean

PREFIX = "paper:"


@dataclass(frozen=True)
class PaperBackbone:
    """One of the sixteen."""

    paper_name: str
    """As the paper's figures have it."""
    builds: str
    """The known name, with its tag, of the same architecture."""
    paper_top1: float
    """ImageNet top-1 of the paper's own checkpoint, a fraction read off its Figure 1 to about 0.001."""


PAPER_BACKBONES: Mapping[str, PaperBackbone] = {
    "inception_v1": PaperBackbone("Inception v1", "torchvision/googlenet", 0.737),
    "bn_inception": PaperBackbone("BN-Inception", "bn_inception.caffe_in1k", 0.753),
    "inception_v3": PaperBackbone("Inception v3", "inception_v3.tf_in1k", 0.786),
    "inception_v4": PaperBackbone("Inception v4", "inception_v4.tf_in1k", 0.799),
    "inception_resnet_v2": PaperBackbone("Inception-ResNet v2", "inception_resnet_v2.tf_in1k", 0.803),
    "resnet_50": PaperBackbone("ResNet-50", "resnet50.tv_in1k", 0.770),
    "resnet_101": PaperBackbone("ResNet-101", "resnet101.tv_in1k", 0.786),
    "resnet_152": PaperBackbone("ResNet-152", "resnet152.tv_in1k", 0.793),
    "densenet_121": PaperBackbone("DenseNet-121", "densenet121.tv_in1k", 0.756),
    "densenet_169": PaperBackbone("DenseNet-169", "densenet169.tv_in1k", 0.768),
    "densenet_201": PaperBackbone("DenseNet-201", "densenet201.tv_in1k", 0.772),
    "mobilenet_v1": PaperBackbone("MobileNet v1", "mobilenetv1_100.ra4_e3600_r224_in1k", 0.724),
    "mobilenet_v2": PaperBackbone("MobileNet v2", "mobilenetv2_100.ra_in1k", 0.717),
    "mobilenet_v2_140": PaperBackbone("MobileNet v2 (1.4)", "mobilenetv2_140.ra_in1k", 0.747),
    "nasnet_a_mobile": PaperBackbone("NASNet-A Mobile", "nasnet_a_mobile.tf_in1k", 0.736),
    "nasnet_a_large": PaperBackbone("NASNet-A Large", "nasnetalarge.tf_in1k", 0.808),
}


def paper_names() -> list[str]:
    """Return the sixteen names as a study has them.

    Examples
    --------
    >>> len(paper_names()), paper_names()[3]
    (16, 'paper:inception_v4')
    """
    return [f"{PREFIX}{name}" for name in PAPER_BACKBONES]


def paper_backbone(name: str) -> PaperBackbone | None:
    """Return what a ``paper:`` name stands for, None for any other name.

    Raises
    ------
    BackboneError
        The name begins with ``paper:`` and is none of the sixteen.

    Examples
    --------
    >>> paper_backbone("paper:nasnet_a_large").builds
    'nasnetalarge.tf_in1k'
    """
    if not name.startswith(PREFIX):
        return None
    found = PAPER_BACKBONES.get(name.removeprefix(PREFIX))
    if found is None:
        near = did_you_mean(name, paper_names()) or "; `penultimate backbones paper` lists the sixteen"
        raise BackboneError(f"unknown backbone {name!r}{near}")
    return found


def built_name(name: str) -> str:
    """Return the timm, torchvision or ``python:`` name of the network that is built for a name."""
    found = paper_backbone(name)
    return found.builds if found else name
