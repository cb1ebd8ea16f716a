"""How many rows a batch has where nobody said: on a GPU as many as its memory takes, found by a trial."""

from __future__ import annotations

import torch

from stages.extract.forward import ReadyNetwork

CPU_ROWS = 64
"""A batch is computed in pieces there, so its size decides only how much is staged at a time."""
MOST_ROWS = 512
"""More keeps no GPU busier."""
SHARE = 0.4
"""Of a GPU's memory, for the activations of one batch; weights, and batches on their way, need the rest."""
_TRIALS = (8, 16)
"""Rows of the two trials: their difference is free of what a pass needs whatever its size."""


def find_batch_size(network: ReadyNetwork) -> int:
    """Return the rows of a batch; the same network on the same kind of device gets the same number.

    Parameters
    ----------
    network : ReadyNetwork

    Returns
    -------
    int
        A power of two up to `MOST_ROWS` on a GPU, `CPU_ROWS` on the CPU.
    """
    if network.device.type == "cpu":
        return CPU_ROWS
    few, more = (_peak(network, rows) for rows in _TRIALS)
    total = torch.cuda.get_device_properties(network.device).total_memory
    return rows_that_fit((more - few) / (_TRIALS[1] - _TRIALS[0]), SHARE * total)


def rows_that_fit(bytes_per_row: float, memory: float) -> int:
    """Return the largest power of two of rows that fit, one at least.

    Examples
    --------
    >>> rows_that_fit(100.0, 3300.0), rows_that_fit(100.0, 1e9), rows_that_fit(100.0, 10.0)
    (32, 512, 1)
    """
    rows = 1
    while 2 * rows <= MOST_ROWS and 2 * rows * bytes_per_row <= memory:
        rows *= 2
    return rows


def _peak(network: ReadyNetwork, rows: int) -> int:
    """Return the bytes that a batch of black images takes at most, on a GPU."""
    size = network.backbone.preprocessing.size
    pixels = torch.zeros((rows, size, size, 3), dtype=torch.uint8, device=network.device).permute(0, 3, 1, 2)
    torch.cuda.reset_peak_memory_stats(network.device)
    before = torch.cuda.memory_allocated(network.device)
    network.compute(pixels)
    torch.cuda.synchronize(network.device)
    return torch.cuda.max_memory_allocated(network.device) - before
