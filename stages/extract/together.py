"""One decode for many backbones: a pass over a split through every network that wants the same pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from stages.errors import DatasetError, InputError, StageError
from stages.extract.decoding import PixelBatch, read_batches
from stages.extract.forward import Pending, ReadyNetwork, threads
from stages.records import FeatureBatch, ImageErrorPolicy, Preprocessing, Progress, Split

_IN_FLIGHT = 2
"""Batches whose forward passes have begun while an earlier one is waited for."""

Result = FeatureBatch | Exception
_Flight = tuple[PixelBatch, list[tuple[int, Pending | Exception]]]


def always(_member: int) -> bool:
    """Want every network's features to the end."""
    return True


def pixels_of(preprocessing: Preprocessing) -> Preprocessing:
    """Return what of a preprocessing decides the pixels: two backbones that agree in it share a decode.

    Mean and standard deviation are no part of it, nor is the fraction of a crop that is not made.

    Examples
    --------
    >>> one = Preprocessing(224, "bicubic", "whole", 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> pixels_of(one) == pixels_of(replace(one, mean=(0.1, 0.2, 0.3), crop_fraction=0.9))
    True
    """
    fraction = preprocessing.crop_fraction if preprocessing.crop == "center" else 1.0
    return replace(preprocessing, crop_fraction=fraction, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def extract_together(
    networks: Sequence[ReadyNetwork],
    split: Split,
    *,
    starts: Sequence[int] | None = None,
    batch_size: int = 64,
    on_bad_image: ImageErrorPolicy = "error",
    num_workers: int | None = None,
    progress: Progress | None = None,
    wanted: Callable[[int], bool] = always,
    image_sha256: Sequence[str] | None = None,
) -> Generator[tuple[int, Result], None, None]:
    """Decode a split once and run several networks over it.

    The features of each are to the byte what it gives alone, from the same batches. A network that fails
    is left out from then on; an image that cannot be decoded concerns all of them and is raised.

    Parameters
    ----------
    networks : sequence of ReadyNetwork
        On one device, wanting the same pixels (`pixels_of`).
    split : Split
        n rows.
    starts : sequence of int, optional
        First row of each network, where an interrupted extraction goes on; they lie whole batches apart.
    batch_size : int
        Rows a batch.
    on_bad_image : {"error", "exclude"}
        Whether an unreadable image ends the extraction or is left out and reported.
    num_workers : int, optional
        Threads that decode beside a GPU; 0 or None = as many as torch computes with.
    progress : callable, optional
        Called with (rows done, n, note) after every batch; it may raise to cancel.
    wanted : callable, optional
        Asked before every forward pass whether the features of a network, told by its place, are still
        wanted.
    image_sha256 : sequence of str, optional
        What the image files must have, one a row; a file of other bytes ends the pass.

    Yields
    ------
    place, FeatureBatch or Exception
        Batches in order; an exception is the last that is heard of a network.

    Raises
    ------
    BadImageError, DatasetError
        Images cannot be decoded.
    UnreadFileError
        A file cannot be read or is not the one that was hashed, whatever the policy.
    InputError
        An argument is out of range, or the networks have nothing in common.
    """
    firsts = list(starts or [0] * len(networks))
    _check(networks, firsts, len(split), batch_size)
    if not networks or min(firsts) == len(split):
        return
    device = networks[0].device
    under_way = _Pass(networks, firsts, split, wanted, progress)
    with threads(device, num_workers) as pool:
        batches = read_batches(
            split,
            networks[0].backbone.preprocessing,
            batch_size=batch_size,
            start=min(firsts),
            on_bad_image=on_bad_image,
            pool=pool,
            padded=device.type == "cuda",
            image_sha256=image_sha256,
        )
        upload, problem = to_device(device), None
        try:
            for batch in batches:
                if not under_way.launch(batch, upload(batch.pixels), pool):
                    return
                if len(under_way.flights) > _IN_FLIGHT:
                    yield from under_way.land()
        except DatasetError as error:  # what was decoded before it is handed out first
            problem = error
        while under_way.flights:
            yield from under_way.land()
        if problem is not None:
            raise problem


@dataclass
class _Pass:
    """What is under way: batches whose features are not handed out yet, and who is out of it."""

    networks: Sequence[ReadyNetwork]
    firsts: Sequence[int]
    split: Split
    wanted: Callable[[int], bool]
    progress: Progress | None
    flights: deque[_Flight] = field(default_factory=deque)
    dropped: set[int] = field(default_factory=set)

    def launch(self, batch: PixelBatch, pixels: Tensor, pool: Executor) -> bool:
        """Begin the forward passes of a batch; False where nobody wants any more."""
        everyone = range(len(self.networks))
        self.dropped.update(place for place in everyone if not self.wanted(place))
        places = [k for k in everyone if self.firsts[k] <= batch.first and k not in self.dropped]
        begun = [(k, _submit(self.networks[k], batch, pixels, pool)) for k in places]
        self.flights.append((batch, begun))
        return len(self.dropped) < len(self.networks)

    def land(self) -> Iterator[tuple[int, Result]]:
        """Wait for the oldest batch and hand its features out."""
        batch, begun = self.flights.popleft()
        for place, waiting in begun:
            if place in self.dropped:
                continue
            result = _result(self.networks[place], self.split, batch, waiting)
            if isinstance(result, Exception):
                self.dropped.add(place)
            yield place, result
        if self.progress is not None:
            self.progress(batch.stop, len(self.split), self._note())

    def _note(self) -> str:
        """Say for a bar what is run."""
        others = len(self.networks) - 1
        return f"{self.networks[0].backbone.label}{f' and {others} more' if others else ''} {self.split.name}"


def _check(networks: Sequence[ReadyNetwork], firsts: Sequence[int], rows: int, batch_size: int) -> None:
    """Refuse what cannot be one pass."""
    if batch_size < 1 or any(not 0 <= first <= rows for first in firsts) or len(firsts) != len(networks):
        listed = ", ".join(map(str, firsts))
        raise InputError(f"batch_size {batch_size} must be positive, start {listed} within {rows} rows")
    origin = min(firsts, default=0)
    if any((first - origin) % batch_size for first in firsts if first < rows):
        raise InputError(f"starts {list(firsts)} must lie whole batches of {batch_size} rows apart")
    if len({(pixels_of(n.backbone.preprocessing), n.device) for n in networks}) > 1:
        labels = ", ".join(n.backbone.label for n in networks)
        raise InputError(f"{labels}: other pixels or other devices, extract them one by one")


def to_device(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what brings a batch to the device: on a GPU in a queue of its own, beside the forward passes."""
    if device.type != "cuda":
        return lambda pixels: pixels
    queue = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(pixels: Tensor) -> Tensor:
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(queue):
            there = pixels.to(device, non_blocking=True)
        computing.wait_stream(queue)
        there.record_stream(computing)
        return there

    return upload


def _submit(network: ReadyNetwork, batch: PixelBatch, pixels: Tensor, pool: Executor) -> Pending | Exception:
    """Begin a forward pass, or return why it cannot begin: on a GPU that is where memory runs out."""
    try:
        return network.submit(batch, pixels, pool)
    except Exception as error:  # of this network alone: the others go on
        return error


def _result(network: ReadyNetwork, split: Split, batch: PixelBatch, waiting: Pending | Exception) -> Result:
    """Wait for the features of one network, or return what went wrong with it."""
    if isinstance(waiting, Exception):
        return waiting
    try:
        features = waiting()
    except Exception as error:  # of this network alone: the others go on
        return error
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = split.ids[int(batch.rows[np.argmax(bad)])]
        return StageError(
            f"{network.backbone.label} gives features that are not finite for {int(bad.sum())} images of "
            f"{split.name}, the first is {first}: use precision float32, or check the weights"
        )
    return FeatureBatch(features, batch.rows, batch.stop, batch.excluded)
