"""Pushes or pulls one entry, to be killed: ``share_program.py push|pull URL OPTIONS ROOT KEY SHARE``.

Says "moving" when it begins, and "there" when that share of the bytes is through; then it waits to be killed.
A share above 1 is never reached: it says "done" and ends.
"""

from __future__ import annotations

import json
import sys
import time

from cache import Store, filesystems
from cache.remote import Remote
from cache.share import pull, push


def main(direction: str, url: str, options: str, root: str, key: str, share: str) -> None:
    """Move one entry until a share of it is through."""
    filesystems.PIECE_BYTES = 1 << 16

    def progress(_key: str, done: int, total: int) -> None:
        if done >= float(share) * total:
            sys.stdout.write("there\n")
            sys.stdout.flush()
            time.sleep(600)

    store = Store(root, private=f"{root}-private")
    remote = Remote(url, json.loads(options))
    sys.stdout.write("moving\n")
    sys.stdout.flush()
    (push if direction == "push" else pull)(store, remote, [key], progress=progress)
    sys.stdout.write("done\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
