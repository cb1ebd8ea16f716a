"""How long jobs take on some workers: longest first, each to the worker that is free first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def makespan(seconds: Sequence[float], workers: int, start: float = 0.0) -> float:
    """Return when the last of some independent jobs is done.

    The rule is Graham's: the longest job that is left goes to the worker that is free first (LPT; Graham, 1969).
    It is at most 4/3 - 1/(3 workers) times as long as the best schedule, and another worker never makes it longer.

    Parameters
    ----------
    seconds : sequence of float
        Of each job, none negative.
    workers : int
        One at least; no more are started than there are jobs.
    start : float
        Seconds that a worker takes before its first job.

    Returns
    -------
    float
        0 where there are no jobs.

    Examples
    --------
    >>> makespan([3.0, 3.0, 2.0, 2.0, 2.0], 2)
    7.0
    >>> makespan([3.0, 3.0, 2.0, 2.0, 2.0], 64, start=1.0)
    4.0
    """
    if workers < 1:
        raise ValueError(f"{workers} workers do nothing: give one at least")
    if not seconds:
        return 0.0
    free = [start] * min(workers, len(seconds))
    for job in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)
