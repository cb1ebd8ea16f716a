"""Does a few things in a store, one after the other; run as one of its users.

Arguments: ROOT STEP..., a step being ``write:N``, ``stage:N`` (begins and leaves), ``hold:N`` (begins,
says so and stays until it is ended), ``read:N``, ``verify:N``, ``remove:N``, ``restore:N``, ``gc:0``,
``pull:URL:N``, ``list:`` or ``meet:USERS`` (waits for the others and makes the same folders and files as
they do). Prints one line of JSON for each step, the last one may be
``{"error": kind, "message": text}``.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np

from cache import CacheError, CacheKey, Store
from cache.atomic import make_file, make_folder, write_file
from cache.maintain import restore
from cache.remote import Remote
from cache.share import pull
from cache.sweep import empty_trash
from cache.verify import verify

ROWS = 16
HALF = 8


def key_of(number: int) -> CacheKey:
    return CacheKey.from_ingredients({"number": number})


def write(store: Store, number: int, upto: int) -> Any:
    """Stage rows from where the last writer stopped, and publish where all are there."""
    metadata = {
        "coordinates": {"number": number},
        "class_names": ["a", "b"],
        "multi_label": False,
        "expected_rows": ROWS,
    }
    with store.writer(key_of(number), metadata, timeout=60.0) as writer:
        begun = writer.next_row
        for start in range(begun, upto, HALF):
            rows = np.arange(start, start + HALF)
            features = np.sin(rows[:, None] + np.arange(3) + number).astype(np.float32)
            writer.append(features, rows % 2, [f"{row}" for row in rows], stop=start + HALF)
        if upto == ROWS:
            return {"begun": begun, "content": writer.publish().content_digest}
        return {"begun": begun}


def hold(store: Store, number: int) -> None:
    """Begin, and stay, saying what a person would be told meanwhile."""
    store.notify = partial(print, flush=True)
    metadata = {"coordinates": {}, "class_names": ["a"], "multi_label": False, "expected_rows": ROWS}
    with store.writer(key_of(number), metadata, timeout=60.0):
        store.notify("held")
        time.sleep(600)


def meet(store: Store, users: int) -> int:
    """Make folders and files at the same time as others, use each, and return how many there were."""
    (store.root / f"ready {time.monotonic_ns()}").touch()
    while len([*store.root.glob("ready *")]) < users:
        pass
    for number in range(400):
        folder = make_folder(store.root / f"{number}" / "a", store.root)
        with make_file(folder / "file", store.root).open("r+b"):
            write_file(folder / "note", b"x", store.root)
    return number + 1


def step(store: Store, name: str, argument: str) -> Any:
    """Do one thing and return what there is to say of it."""
    if name == "pull":
        url, number = argument.rsplit(":", 1)
        return [transfer.status for transfer in pull(store, Remote(url), [key_of(int(number))])]
    if name == "list":
        return sorted(info.coordinates["number"] for info in store.list())
    if name == "meet":
        return meet(store, int(argument))
    if name == "gc":
        return empty_trash(store, grace=-1.0).folders
    number = int(argument)
    if name == "write":
        return write(store, number, ROWS)
    if name == "stage":
        return write(store, number, HALF)
    if name == "hold":
        return hold(store, number)
    if name == "read":
        return store.read(key_of(number)).content_digest
    if name == "verify":
        return verify(store, key_of(number)).nbytes
    if name == "remove":
        return str(store.remove(key_of(number)))
    assert name == "restore"
    return restore(store, key_of(number)).content_digest


def main() -> int:
    lines: list[str] = []
    store = Store(sys.argv[1], notify=lines.append)
    for word in sys.argv[2:]:
        name, _, argument = word.partition(":")
        try:
            done = {"done": step(store, name, argument)}
        except CacheError as error:
            done = {"error": type(error).__name__, "message": str(error)}
        sys.stdout.write(json.dumps({**done, "told": lines}) + "\n")
        sys.stdout.flush()
        lines.clear()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
