"""`penultimate bench probe --growth`: how the time of a path grows with rows, columns and classes.

One of the three is doubled four times while the others stay; the exponent is the slope of log CPU seconds
over log size, by least squares. `--large` is one path on as many rows as Food-101 has for training, with the
columns of a ResNet-50. The features are synthetic: eigenvalues that fall like 1 / j, as those of real
penultimate features roughly do, and classes that overlap.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.locks import silent
from stages.probe import default_lambdas, fit_path

Array = NDArray[Any]
Rows = list[dict[str, Any]]

BASE = {"n": 2000, "d": 256, "K": 16}
FIRST = {"n": 500, "d": 64, "K": 4}
FACTORS = (1, 2, 4, 8, 16)
LARGE = {"n": 75_750, "d": 2048, "K": 101}
_BLOCK_ROWS = 4096


def bench_growth(
    threads: int | None = None, *, lambdas: int = 45, tell: Callable[[str], None] = silent
) -> Rows:
    """Measure certified paths at growing sizes, and ``tell`` of each.

    Returns
    -------
    list of dict
        problem (what grows), n, d, K, cpu_seconds, passes, converged (of the lambdas), peak_mb that the path
        took beside the features it was given, and exponent, the same in all rows of a problem.
    """
    rows: Rows = []
    for what, first in FIRST.items():
        grown = []
        for factor in FACTORS:
            grown.append(_measured({**BASE, what: first * factor}, threads, lambdas))
            tell(", ".join(f"{name} {value}" for name, value in grown[-1].items()))
        slope = exponent([row[what] for row in grown], [row["cpu_seconds"] for row in grown])
        rows += [{"problem": f"growth in {what}", **row, "exponent": round(slope, 2)} for row in grown]
    return rows


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return p of seconds ~ sizes^p, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def bench_large(threads: int | None = None, *, lambdas: int = 45) -> Rows:
    """Measure one certified path on a large problem, its features mapped from a file as a cache entry's are.

    Returns
    -------
    list of dict
        One row: n, d, K, seconds, cpu_seconds, passes, converged, peak_mb, which is what the path took
        beside the mapped features, and features_mb of them in float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        blocks = realistic(LARGE["n"], LARGE["d"], LARGE["K"])
        features = np.lib.format.open_memmap(
            Path(folder) / "features.npy", "w+", np.float32, (LARGE["n"], LARGE["d"])
        )
        begin = 0
        for block in blocks:
            features[begin : begin + len(block)] = block
            begin += len(block)
        labels = np.arange(LARGE["n"]) % LARGE["K"]
        tracemalloc.start()
        started = time.perf_counter()
        row = _path(features, labels, _grid(lambdas), threads)
        seconds = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        sizes = {"peak_mb": round(peak / 1e6, 1), "features_mb": round(features.nbytes / 1e6, 1)}
        return [{"problem": "large", **LARGE, "seconds": round(seconds, 1), **row, **sizes}]


def _measured(size: dict[str, int], threads: int | None, lambdas: int) -> dict[str, Any]:
    """Time one path, then run it again for its peak of memory, which slows it down."""
    features = np.concatenate(list(realistic(size["n"], size["d"], size["K"])))
    labels = np.arange(size["n"]) % size["K"]
    row = _path(features, labels, _grid(lambdas), threads)
    tracemalloc.start()
    _path(features, labels, _grid(lambdas), threads)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {**size, **row, "peak_mb": round(peak / 1e6, 1)}


def _grid(lambdas: int) -> Array:
    """Return so many lambdas over the range of the default ones, from strong to weak."""
    usual = default_lambdas()
    return np.geomspace(usual[-1], usual[0], lambdas)


def _path(features: Array, labels: Array, grid: Array, threads: int | None) -> dict[str, Any]:
    """Time one path."""
    clock = time.process_time()
    path = fit_path(features, labels, grid, threads=threads)
    return {
        "cpu_seconds": round(time.process_time() - clock, 3),
        "passes": int(path.evaluations.sum()),
        "converged": int(path.converged.sum()),
    }


def realistic(n: int, d: int, K: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield (n, d) features, some rows at a time, with eigenvalues like 1 / j and K classes that overlap.

    Row i is of class i modulo K.
    """
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.5
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0] * scale[:, None]
    centres = 0.5 * rng.standard_normal((K, d))
    for start in range(0, n, _BLOCK_ROWS):
        rows = np.arange(start, min(n, start + _BLOCK_ROWS))
        yield ((centres[rows % K] + rng.standard_normal((len(rows), d))) @ turn).astype(np.float32)
