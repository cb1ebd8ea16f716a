"""`penultimate bench probe --growth`: how the time of a path grows with rows, columns and classes.

One of the three is doubled four times while the others stay; the exponent is the slope of log CPU seconds
over log size, by least squares. The features are synthetic: eigenvalues that fall like 1 / j, as those of real
penultimate features roughly do, and classes that overlap.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = list[dict[str, Any]]

BASE = {"n": 2000, "d": 256, "K": 16}
FIRST = {"n": 500, "d": 64, "K": 4}
FACTORS = (1, 2, 4, 8, 16)


def bench_growth(threads: int | None = None, *, lambdas: int = 45) -> Rows:
    """Measure certified paths at growing sizes.

    Returns
    -------
    list of dict
        problem (what grows), n, d, K, cpu_seconds, passes, converged (of the lambdas), peak_mb that the path
        took beside the features it was given, and exponent, the same in all rows of a problem.
    """
    rows: Rows = []
    for what, first in FIRST.items():
        grown = [_measured({**BASE, what: first * factor}, threads, lambdas) for factor in FACTORS]
        slope = exponent([row[what] for row in grown], [row["cpu_seconds"] for row in grown])
        rows += [{"problem": f"growth in {what}", **row, "exponent": round(slope, 2)} for row in grown]
    return rows


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return p of seconds ~ sizes^p, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _measured(size: dict[str, int], threads: int | None, lambdas: int) -> dict[str, Any]:
    """Time one path, then run it again for its peak of memory, which slows it down."""
    from stages.probe import default_lambdas, fit_path

    features, labels = realistic(size["n"], size["d"], size["K"])
    usual = default_lambdas()
    grid = np.geomspace(usual[-1], usual[0], lambdas)
    clock = time.process_time()
    path = fit_path(features, labels, grid, threads=threads)
    seconds = time.process_time() - clock
    tracemalloc.start()
    fit_path(features, labels, grid[:3], threads=threads)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        **size,
        "cpu_seconds": round(seconds, 3),
        "passes": int(path.evaluations.sum()),
        "converged": int(path.converged.sum()),
        "peak_mb": round(peak / 1e6, 1),
    }


def realistic(n: int, d: int, K: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return (n, d) features with eigenvalues like 1 / j and K classes that overlap, as many rows of each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % K
    scale = np.arange(1, d + 1) ** -0.5
    features = (0.5 * rng.standard_normal((K, d)))[labels] + rng.standard_normal((n, d))
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return ((features * scale) @ turn).astype(np.float32), labels
