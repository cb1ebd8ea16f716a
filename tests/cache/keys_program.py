"""Makes sure that all keys are there, in an order of its own; run by several processes at once.

Arguments: ROOT KEYS LOG SEED. Writes the number of each key that it computed into LOG, and prints the
content digest of every key.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from cache import CacheKey, Store


def main() -> int:
    root, keys, log, seed = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    store = Store(root, private=f"{root}-private-{seed}")
    names = [CacheKey.from_ingredients({"number": k}) for k in range(keys)]
    order = list(range(keys))
    random.Random(seed).shuffle(order)
    for k in order:
        metadata = {
            "coordinates": {"number": k},
            "class_names": ["a", "b"],
            "multi_label": False,
            "expected_rows": 14,
        }
        with store.writer(names[k], metadata) as writer:
            if writer.published is None:
                with log.open("a") as file:
                    file.write(f"{k}\n")
            for start in range(writer.next_row, 14, 7):
                rows = np.arange(start, start + 7)
                features = np.full((7, 3), k + 1, np.float32) * rows[:, None].astype(np.float32)
                writer.append(features, rows % 2, [f"{row}" for row in rows], stop=start + 7)
            writer.publish()
    for name in names:
        sys.stdout.write(store.read(name).content_digest + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
