"""A backbone over a split: batches of penultimate features, in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.errors import InputError, StageError
from stages.extract.reading import ReadBatch, read_batches
from stages.records import Backbone, FeatureBatch, ImageErrorPolicy, Preprocessing, Progress, Split
from stages.vision.devices import choose_device, numeric_precision
from stages.vision.folding import fold_batch_norms
from stages.vision.networks import build_network
from stages.vision.transforms import normalise, stack


def extract_features(
    backbone: Backbone,
    split: Split,
    *,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "float32",
    on_bad_image: ImageErrorPolicy = "error",
    num_workers: int | None = None,
    start: int = 0,
    progress: Progress | None = None,
    network: nn.Module | None = None,
) -> Iterator[FeatureBatch]:
    """Yield the penultimate features of a split, batch after batch (protocol, "Linear probe").

    Parameters
    ----------
    backbone : Backbone
        Network, weights and preprocessing.
    split : Split
        n rows; every image is decoded once.
    batch_size : int
        Rows a forward pass.
    device : str
        "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
    precision : {"float32", "tf32", "bfloat16", "float16"}
        Of the forward pass; features are handed out in float32 always. The last but bfloat16 need a GPU.
    on_bad_image : {"error", "exclude"}
        Whether an unreadable image ends the extraction or is left out and reported.
    num_workers : int or None
        Threads that decode; None = as many as torch computes with.
    start : int
        First row: where an interrupted extraction goes on. At a multiple of ``batch_size`` the batches, and
        so the bytes, are those of an uninterrupted run.
    progress : callable or None
        Called with (rows done, n, note) after every batch; it may raise to cancel.
    network : torch.nn.Module or None
        The backbone's network where it is built already (several splits in a row).

    Yields
    ------
    FeatureBatch
        Features (b, d) float32, their rows, and what was excluded.

    Raises
    ------
    BadImageError
        An image cannot be decoded and the policy is "error".
    WeightsError, BackboneError
        The network cannot be built.
    InputError
        An argument is out of range.
    StageError
        The network gave features that are not finite.

    Examples
    --------
    >>> from stages.backbones import resolve
    >>> empty = Split("train", (), (), np.zeros(0, np.int64))
    >>> list(extract_features(resolve("resnet10t.c3_in1k", weights="random"), empty, device="cpu"))
    []
    """
    if batch_size < 1 or not 0 <= start <= len(split):
        raise InputError(f"batch_size {batch_size} must be positive, start {start} within {len(split)} rows")
    target = choose_device(device)
    with numeric_precision(precision, target):
        pass
    if start == len(split):
        return
    ready = _prepare(network or build_network(backbone), backbone, target)
    batches = read_batches(
        split,
        backbone.preprocessing,
        batch_size=batch_size,
        start=start,
        on_bad_image=on_bad_image,
        num_workers=num_workers,
    )
    for batch in batches:
        features = _forward(ready, batch, backbone.preprocessing, target, precision)
        _check_finite(features, backbone, split, batch)
        yield FeatureBatch(features, batch.rows, batch.stop, batch.excluded)
        if progress is not None:
            progress(batch.stop, len(split), f"{backbone.label} {split.name}")


def _prepare(network: nn.Module, backbone: Backbone, device: torch.device) -> nn.Module:
    """Fold batch norms, and lay the weights out as the device likes them."""
    network.eval()
    folded = fold_batch_norms(network, backbone.preprocessing.size)
    return folded.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _forward(
    network: nn.Module, batch: ReadBatch, preprocessing: Preprocessing, device: torch.device, precision: str
) -> NDArray[np.float32]:
    """Run one batch; a batch whose images were all excluded gives no rows."""
    size = preprocessing.size
    pixels = stack(batch.images or [np.zeros((size, size, 3), np.uint8)])
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    with torch.inference_mode(), numeric_precision(precision, device):
        features = network(normalise(pixels.to(device, non_blocking=True), preprocessing))
        return np.ascontiguousarray(features.float().cpu().numpy()[: len(batch.images)])


def _check_finite(features: NDArray[np.float32], backbone: Backbone, split: Split, batch: ReadBatch) -> None:
    """Refuse features that are not numbers: a probe on them means nothing."""
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = split.ids[int(batch.rows[np.argmax(bad)])]
        raise StageError(
            f"{backbone.label} gives features that are not finite for {int(bad.sum())} images of "
            f"{split.name}, the first is {first}: use precision float32, or check the weights"
        )
