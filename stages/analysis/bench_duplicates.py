"""How long the search for near-duplicates takes beside the bare matrix product, and what memory it adds."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.analysis.blocks import blocks
from stages.analysis.duplicates import FIRST_ROWS, SECOND_ROWS, near_duplicates
from stages.errors import InputError


@dataclass(frozen=True)
class DuplicatesBench:
    """One measurement."""

    rows: tuple[int, int]
    dimension: int
    hidden: int
    """Near-copies put into the second table."""
    found: int
    """Pairs at or above the threshold."""
    seconds: float
    """Wall time of the search."""
    cpu_seconds: float
    product_seconds: float
    """Wall time of the float32 products of the same blocks, read from the same files and nothing else done."""
    product_cpu_seconds: float
    added_bytes: int
    """By which the process's largest resident size grew during the search, mapped pages of the files included."""


def bench_near_duplicates(
    folder: Path,
    *,
    first_rows: int = 50_000,
    second_rows: int = 10_000,
    dimension: int = 1280,
    hidden: int = 500,
    seed: int = 0,
) -> DuplicatesBench:
    """Measure the search between two tables of made-up features that are memory-mapped.

    Parameters
    ----------
    folder : Path
        Gets two files, which are removed again: 4 bytes a value.
    first_rows, second_rows, dimension : int
        Shapes.
    hidden : int
        Rows of the second table that are rows of the first with a little noise.
    seed : int

    Returns
    -------
    DuplicatesBench

    Raises
    ------
    InputError
        More hidden rows than the tables have.

    Notes
    -----
    Features are half-normal: not negative, as behind a rectifier, with cosines near 0.64 between unrelated
    rows. Measured on two shared cores of a virtual machine, one BLAS thread, 50,000 x 10,000 x 1,280:
    16.2 s of CPU beside 14.7 s for the products alone (1.06 to 1.15 times in four runs), 100 MB added, all 500
    hidden rows found.
    """
    if hidden > min(first_rows, second_rows):
        raise InputError(f"{hidden} hidden rows do not fit in tables of {first_rows} and {second_rows}")
    names = [folder / f"bench-duplicates-{which}.npy" for which in ("first", "second")]
    try:
        first, second = _tables(names, (first_rows, second_rows), dimension, hidden, seed)
        before, wall, cpu = _largest(), time.perf_counter(), time.process_time()
        found = near_duplicates(first, second, threshold=0.95)
        search = time.perf_counter() - wall, time.process_time() - cpu
        added = _largest() - before
        product = _bare_product(first, second)
    finally:
        for name in names:
            name.unlink(missing_ok=True)
    return DuplicatesBench(
        (first_rows, second_rows), dimension, hidden, found.found, *search, *product, added
    )


def _tables(
    names: list[Path], rows: tuple[int, int], dimension: int, hidden: int, seed: int
) -> tuple[np.memmap, np.memmap]:
    """Write both tables a block at a time and map them."""
    rng = np.random.default_rng(seed)
    for name, count in zip(names, rows, strict=True):
        table = np.lib.format.open_memmap(name, "w+", np.float32, (count, dimension))
        for start in range(0, count, SECOND_ROWS):
            part = table[start : start + SECOND_ROWS]
            part[:] = np.abs(rng.standard_normal(part.shape, dtype=np.float32))
        table.flush()
    first, second = (np.load(name, mmap_mode="r+") for name in names)
    noise = 0.1 * rng.standard_normal((hidden, dimension), dtype=np.float32)
    second[:hidden] = first[rng.permutation(rows[0])[:hidden]] + noise
    return first, second


def _bare_product(first: np.memmap, second: np.memmap) -> tuple[float, float]:
    """Return wall and CPU seconds of the products alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _, block in blocks(first, size=FIRST_ROWS, dtype=None):
        for _, other in blocks(second, size=SECOND_ROWS, dtype=None):
            np.matmul(block, other.T)
    return time.perf_counter() - wall, time.process_time() - cpu


def _largest() -> int:
    """Return the largest resident size of this process so far, bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size
