"""Networks made ready for forward passes: in small pieces on the CPU, in whole batches on a GPU.

On the CPU a batch is cut into pieces, and each piece is computed by one thread. What a layer hands to the
next then stays in the processor's cache, no thread waits for another within a layer, and threads that have
no piece to compute decode images. How many rows a piece has depends on the network alone, so the features
do not depend on how many threads there are.

A network of one's own may keep something of one image while it works on it, in an attribute or by a hook.
Two threads in it at once would give features of the wrong image, so it takes a batch at a time with all
threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.errors import InputError
from stages.extract.decoding import PixelBatch
from stages.records import Backbone
from stages.vision.devices import autocast, check_precision, numeric_precision
from stages.vision.folding import fold_batch_norms
from stages.vision.networks import build_network
from stages.vision.packing import pack_convolutions
from stages.vision.transforms import normalise

PIECE_BYTES = 8 << 20
"""A piece's largest activation. Larger ones leave the cache, and their memory is asked of the system and given
back for every layer (measured: with four times as much, eight small nets take 6 % longer)."""
PIECE_ROWS = (4, 32)
"""Fewer rows do not pay for a call of every layer, more gain nothing."""

COMPILE_ROWS = 200_000
"""Images from which on a faster forward pass pays for compiling it (an estimate: a minute at 3,000 images/s)."""

Pending = Callable[[], NDArray[np.float32]]
"""Waits for a forward pass and returns its features (n, d)."""


@dataclass(frozen=True)
class ReadyNetwork:
    """A backbone's network that is only ever run forward; made by `prepare`."""

    backbone: Backbone
    network: nn.Module
    device: torch.device
    precision: str
    dimension: int
    """Of the features."""
    piece: int
    """Rows that one thread computes at a time on the CPU."""
    shared: bool = True
    """Whether several threads may be in it at once."""
    turn: Lock = field(default_factory=Lock, repr=False, compare=False)
    """Whoever computes with a network that is not shared has it."""

    def submit(self, batch: PixelBatch, pixels: Tensor, pool: Executor) -> Pending:
        """Begin the forward pass of a batch.

        Parameters
        ----------
        batch : PixelBatch
        pixels : Tensor
            The batch's, on the network's device.
        pool : Executor
            Threads that compute, where the device is the CPU.

        Returns
        -------
        callable
            Waits and returns the features (len(batch.rows), d) float32; raises what the pass raised.
        """
        count = len(batch.rows)
        if not count:
            return lambda: np.zeros((0, self.dimension), np.float32)
        if self.device.type != "cpu":
            return self._on_gpu(pixels, count)
        if self.shared:
            futures = [pool.submit(self._piece, piece) for piece in torch.split(pixels[:count], self.piece)]
        else:
            futures = [pool.submit(self._batch, pixels[:count], torch.get_num_threads())]
        return lambda: np.concatenate([future.result() for future in futures])

    def compute(self, pixels: Tensor) -> Tensor:
        """Normalise on the device and run the network: (n, 3, size, size) uint8 -> (n, d) float32."""
        precise = autocast if self.device.type == "cpu" else numeric_precision
        with torch.inference_mode(), precise(self.precision, self.device):
            features: Tensor = self.network(normalise(pixels, self.backbone.preprocessing))
            return features.float().contiguous()

    def _piece(self, pixels: Tensor) -> NDArray[np.float32]:
        """Compute one piece in the thread that calls."""
        return self.compute(pixels).numpy()

    def _batch(self, pixels: Tensor, count: int) -> NDArray[np.float32]:
        """Compute a batch with so many threads, and nobody else in the network meanwhile."""
        with self.turn:
            torch.set_num_threads(count)
            try:
                return np.concatenate([self._piece(piece) for piece in torch.split(pixels, PIECE_ROWS[1])])
            finally:
                _compute_alone()

    def _on_gpu(self, pixels: Tensor, count: int) -> Pending:
        """Put the pass and the copy of its features into the GPU's queue, and wait for neither."""
        features = self.compute(pixels)[:count]
        on_host = torch.empty(features.shape, dtype=torch.float32, pin_memory=True)
        on_host.copy_(features, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(self.device))

        def wait() -> NDArray[np.float32]:
            copied.synchronize()
            return np.array(on_host.numpy())  # page-locked memory is scarce: it goes back at once

        return wait


def prepare(
    backbone: Backbone,
    device: torch.device,
    precision: str = "float32",
    *,
    network: nn.Module | None = None,
    compiled: bool = False,
) -> ReadyNetwork:
    """Build a backbone's network, fold its batch norms, and lay its weights out as the device likes them.

    On the CPU a network of one's own keeps its convolutions: it may look at them while it works.

    Parameters
    ----------
    backbone : Backbone
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    network : torch.nn.Module, optional
        The backbone's network where it is built already; left as it is.
    compiled : bool
        Compile it for the shape of its batches, which takes about a minute; on a GPU only.

    Raises
    ------
    WeightsError, BackboneError
        The network cannot be built.
    InputError
        The device has not that precision.
    """
    check_precision(precision, device)
    built = (network or build_network(backbone)).eval()
    size = backbone.preprocessing.size
    folded: Any = fold_batch_norms(built, size)
    dimension, largest = _measure(folded, size)
    smallest, most = PIECE_ROWS
    piece = smallest
    while 2 * piece <= most and 2 * piece * largest <= PIECE_BYTES:
        piece *= 2
    shared = not backbone.name.startswith("python:")
    folded = copy.deepcopy(folded) if folded is network else folded
    if shared and device.type == "cpu" and precision == "float32":
        pack_convolutions(folded, size, piece)
    on_device = folded.to(device=device, memory_format=torch.channels_last)
    if compiled:
        on_device = torch.compile(on_device, dynamic=False)
    return ReadyNetwork(backbone, on_device, device, precision, dimension, piece, shared)


def is_compiled(choice: str, device: torch.device, rows: int) -> bool:
    """Whether a network is compiled for a split of so many rows.

    Parameters
    ----------
    choice : {"auto", "always", "never"}
        The word auto: where a GPU has so much to do that compiling is paid back.
    device : torch.device
    rows : int

    Raises
    ------
    InputError
        "always" where there is no GPU: on the CPU threads share the network, and compiled ones cannot be.
    """
    if choice == "always" and device.type != "cuda":
        raise InputError(f'compile = "always" needs a GPU, the device is {device}: say "auto" or "never"')
    return choice == "always" or (choice == "auto" and device.type == "cuda" and rows >= COMPILE_ROWS)


def _measure(network: nn.Module, size: int) -> tuple[int, int]:
    """Return the dimension of the features, and the bytes of the largest activation of one image."""
    largest = 0

    def look(_module: nn.Module, _inputs: Any, out: Any) -> None:
        nonlocal largest
        if isinstance(out, Tensor):
            largest = max(largest, out.numel() * 4)

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.inference_mode():
            features = network(torch.zeros(1, 3, size, size))
    finally:
        for hook in hooks:
            hook.remove()
    return features.shape[1], largest


@contextmanager
def threads(device: torch.device, num_workers: int | None) -> Iterator[Executor]:
    """Have threads that decode, and on the CPU compute too, each by itself.

    On the CPU there are as many as torch computes with; beside a GPU ``num_workers``, 0 or None = as many
    as torch would compute with.
    """
    before = torch.get_num_threads()
    on_cpu = device.type == "cpu"
    count = before if on_cpu else num_workers or before
    begin: Any = _compute_alone if on_cpu else None
    pool = ThreadPoolExecutor(count, thread_name_prefix="extract", initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)  # threads that are born later take the number that was set last


def _compute_alone() -> None:
    """Let torch compute with this thread alone what is computed in it."""
    torch.set_num_threads(1)
