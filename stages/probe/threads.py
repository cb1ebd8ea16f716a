"""As many threads as the process may use, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from joblib import cpu_count
from threadpoolctl import ThreadpoolController

from stages.errors import ProbeError


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Limit the linear algebra to ``threads``; None: to the CPUs of this process, cgroup quota included.

    A limit that is already lower (a worker of a pool) stays.

    Raises
    ------
    ProbeError
        ``threads`` below one.
    """
    if threads is not None and threads < 1:
        raise ProbeError(f"threads = {threads}: give at least one")
    pools = ThreadpoolController()
    current = [pool["num_threads"] for pool in pools.info() if pool["user_api"] == "blas"]
    limit = min([cpu_count(), *current]) if threads is None else threads
    with pools.limit(limits=limit, user_api="blas"):
        yield
