"""Build the table of backbones that ships (``stages/backbones.csv``).

::

    python -m stages.vision.backbone_table --imagenet results.csv --output stages/backbones.csv

Every network is built on the meta device and run once on a shape, so that the dimension in the table is
the one the forward pass gives. ImageNet top-1 comes from timm's published results table (columns
``model,img_size,top1`` in percent), matched by the exact ``architecture.tag`` name and by the input size;
torchvision's comes from the metadata of its own weights, that of the networks written here from
``OWN_TOP1``.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from timm.models import create_model, get_pretrained_cfg, list_models, list_pretrained
from torch import nn

from stages.backbones import COLUMNS
from stages.vision import bn_inception, nasnet_mobile  # noqa: F401 - timm knows them once imported

_log = logging.getLogger(__name__)

OWN_TOP1: dict[tuple[str, int], float] = {
    ("bn_inception.caffe_in1k", 224): 73.524,
    ("nasnet_a_mobile.tf_in1k", 224): 74.080,
}
"""ImageNet top-1 in percent of the networks written here, by the results table of the project that
publishes their weights (README of pretrained-models for PyTorch 0.7.4, 2018)."""


def measure(network: nn.Module, size: int) -> tuple[int, int]:
    """Return the feature dimension by a forward pass on the meta device, and the parameter count."""
    network.eval()
    parameters = sum(p.numel() for p in network.parameters())
    declared = int(getattr(network, "head_hidden_size", 0) or getattr(network, "num_features", 0))
    try:
        with torch.no_grad():
            out = network(torch.empty(2, 3, size, size, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as problem:
        _log.info("no meta forward pass (%s): the declared dimension %d is used", problem, declared)
        return declared, parameters
    if not isinstance(out, torch.Tensor) or out.ndim != 2:
        _log.info("the forward pass gives no vector: the network cannot be a backbone")
        return 0, parameters
    return int(out.shape[1]), parameters


def timm_rows(top1: Mapping[tuple[str, int], float]) -> Iterator[dict[str, str]]:
    """Yield one row for every pretrained timm name, and one for every architecture without weights."""
    by_architecture: dict[str, list[str]] = {}
    for name in list_pretrained():
        by_architecture.setdefault(name.partition(".")[0], []).append(name)
    for architecture in list_models():
        default = _default_name(architecture)
        measured: dict[tuple[int, int], tuple[int, int]] = {}
        for name in by_architecture.get(architecture, [architecture]):
            config = get_pretrained_cfg(name)
            if config is None or config.input_size != (3, config.input_size[1], config.input_size[1]):
                continue  # a preprocessing is square and in colour
            size, key = config.input_size[1], config.input_size[1:]
            if key not in measured:
                measured[key] = _measure_timm(name, size)
            dimension, parameters = measured[key]
            if dimension:
                row = _timm_row(name, config, dimension, parameters, top1.get((name, size)))
                yield row | {"default": str(int(name == default))}


def _default_name(architecture: str) -> str:
    """Return the name with the tag that timm takes for a bare architecture."""
    config = get_pretrained_cfg(architecture)
    tag = config.tag if config is not None else ""
    return f"{architecture}.{tag}" if tag else architecture


def _measure_timm(name: str, size: int) -> tuple[int, int]:
    """Measure one timm network; (0, 0) where timm itself cannot build it on the meta device."""
    try:
        with torch.device("meta"):
            network = create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as problem:
        _log.info("%s is left out: %s", name, problem)
        return 0, 0
    return measure(network, size)


def _timm_row(name: str, config: Any, dimension: int, parameters: int, top1: float | None) -> dict[str, str]:
    """Return the facts of one timm name as the cells of a row."""
    return {
        "name": name,
        "dimension": str(dimension),
        "size": str(config.input_size[1]),
        "fixed_size": str(int(bool(config.fixed_input_size))),
        "interpolation": config.interpolation,
        "crop_fraction": f"{config.crop_pct:g}",
        "mean": _triple(config.mean),
        "std": _triple(config.std),
        "source": _source(name, config),
        "parameters": str(parameters),
        "imagenet_top1": "" if top1 is None else f"{top1 / 100:.5f}",
    }


def _triple(values: Iterable[float]) -> str:
    """Write three numbers into one cell."""
    return " ".join(f"{v:.6g}" for v in values)


def _source(name: str, config: Any) -> str:
    """Say where the weights of a timm name come from: "hub:ID", "hub" for the usual id, or "url:FILE"."""
    if config.hf_hub_id:
        return "hub" if config.hf_hub_id == f"timm/{name}" else f"hub:{config.hf_hub_id}"
    return f"url:{config.url.rpartition('/')[2]}" if config.url else ""


def torchvision_rows() -> Iterator[dict[str, str]]:
    """Yield one row for every classification network of torchvision, with its default weights."""
    from stages.vision.networks import build_torchvision

    for architecture in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
        transform = weights.transforms()
        size, resized = transform.crop_size[0], transform.resize_size[0]
        try:
            with torch.device("meta"):
                network = build_torchvision(architecture)
        except NotImplementedError:  # RegNet computes its widths with tensors, which meta has no values for
            network = build_torchvision(architecture).to("meta")
        dimension, parameters = measure(network, size)
        top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        yield {
            "name": f"torchvision/{architecture}",
            "default": "1",
            "dimension": str(dimension),
            "size": str(size),
            "fixed_size": str(int(architecture.startswith(("vit", "maxvit")))),
            "interpolation": transform.interpolation.value,
            "crop_fraction": f"{size / resized:.4g}",
            "mean": _triple(transform.mean),
            "std": _triple(transform.std),
            "source": f"url:{weights.url.rpartition('/')[2]}",
            "parameters": str(parameters),
            "imagenet_top1": f"{top1 / 100:.5f}",
        }


def read_top1(path: Path) -> dict[tuple[str, int], float]:
    """Read timm's published results: (name, input size) -> ImageNet top-1 in percent."""
    with path.open(newline="", encoding="utf-8") as file:
        return {(r["model"], int(r["img_size"])): float(r["top1"]) for r in csv.DictReader(file)}


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Build the table of backbones that ships.")
    parser.add_argument("--imagenet", type=Path, required=True, help="timm's results table, csv")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("timm").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    rows = [*timm_rows(read_top1(options.imagenet) | OWN_TOP1), *torchvision_rows()]
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["name"]))
    _log.info("%d rows", len(rows))


if __name__ == "__main__":
    main()
