"""A connection to a dask scheduler, on an event loop of our own, or one line that says why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import SurroundingsError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
"""For letting go of what did not answer."""
_START_SECONDS = 1.0
"""Between two looks whether the thread of the loop lives."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler, and let go of it at the end.

    Parameters
    ----------
    address : str
        Of the scheduler: "tcp://host:8786".

    Raises
    ------
    SurroundingsError
        Nothing that is a scheduler answers there.
    """
    with _loop() as loop, _client(address, loop) as client:
        yield client


@contextlib.contextmanager
def _loop() -> Iterator[Any]:
    """Run an event loop in a thread of our own: distributed gives one 10 s to start and then asserts that it has."""
    from tornado.ioloop import IOLoop

    ready = threading.Event()
    found: list[Any] = []

    async def live() -> None:
        stop = asyncio.Event()
        found.extend((IOLoop.current(), stop))
        ready.set()
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="dask loop", daemon=True)
    thread.start()
    while not ready.wait(_START_SECONDS):
        if not thread.is_alive():
            raise SurroundingsError("the thread that talks to the dask scheduler did not start: run again")
    loop, stop = found
    try:
        yield loop
    finally:
        loop.add_callback(stop.set)
        thread.join(timeout=CONNECT_SECONDS)


@contextlib.contextmanager
def _client(address: str, loop: Any) -> Iterator[Client]:
    """Connect, or say in one line why not."""
    from distributed import Client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions that differ are told by `Dask.check`
        try:
            reached = asyncio.run_coroutine_threadsafe(_reach(address), loop.asyncio_loop)
            # Where something listens that never says a word, such as a dashboard, distributed waits for ever.
            reached.result(timeout=CONNECT_SECONDS + _CLOSE_SECONDS)
            client = Client(address, loop=loop, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # of a worker's address, or a transport that is not installed: any kind
            raise SurroundingsError(
                f"{address}: no dask scheduler answers ({type(error).__name__}): start one with `dask scheduler`, "
                'or correct the address: it is the one behind "Scheduler at:" (tcp://host:8786), neither the '
                "dashboard's nor a worker's"
            ) from error
    with client:
        yield client


async def _reach(address: str) -> None:
    """Connect and let go again: a client that fails in its constructor cannot be closed and complains later."""
    from distributed import Client

    client = Client(address, asynchronous=True, timeout=CONNECT_SECONDS, set_as_default=False)
    try:
        await client
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
