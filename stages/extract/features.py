"""A backbone over a split: batches of penultimate features, in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from stages.errors import InputError
from stages.extract.forward import prepare
from stages.extract.together import extract_together
from stages.records import Backbone, FeatureBatch, ImageErrorPolicy, Progress, Split
from stages.vision.devices import check_precision, choose_device


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
        Whether an image that cannot be decoded ends the extraction or is left out and reported.
    num_workers : int or None
        Threads that decode beside a GPU; 0 or None = as many as torch computes with. On the CPU decoding and
        computing share as many threads as torch computes with.
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
    UnreadFileError
        A file cannot be read, whatever the policy.
    WeightsError, BackboneError
        The network cannot be built.
    InputError
        An argument is out of range.
    StageError
        The network gave features that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from stages.backbones import resolve
    >>> empty = Split("train", (), (), np.zeros(0, np.int64))
    >>> list(extract_features(resolve("resnet10t.c3_in1k", weights="random"), empty, device="cpu"))
    []
    """
    target = choose_device(device)
    check_precision(precision, target)
    if batch_size < 1 or not 0 <= start <= len(split):
        raise InputError(f"batch_size {batch_size} must be positive, start {start} within {len(split)} rows")
    if start == len(split):
        return
    results = extract_together(
        [prepare(backbone, target, precision, network=network)],
        split,
        starts=[start],
        batch_size=batch_size,
        on_bad_image=on_bad_image,
        num_workers=num_workers,
        progress=progress,
    )
    for _, result in results:
        if isinstance(result, Exception):
            raise result
        yield result
