"""Writes one entry in batches; run as a process of its own that may be ended at any moment.

Arguments: ROOT ROWS PAUSE [BACKBONE]. Ends with 0 and the file's SHA-256, or with 3 and one line.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time

import numpy as np

from cache import CacheError, CacheKey, Store


def main() -> int:
    root, rows, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    backbone = sys.argv[4] if len(sys.argv) > 4 else "resnet50"
    key = CacheKey.from_ingredients({"backbone": backbone, "recipe_version": 1})
    metadata = {
        "coordinates": {"backbone": backbone, "split": "train"},
        "class_names": ["a", "b", "c"],
        "multi_label": False,
        "expected_rows": rows,
    }
    try:
        with Store(root, private=f"{root}-private").writer(key, metadata) as writer:
            for start in range(writer.next_row, rows, 8):
                number = np.arange(start, min(rows, start + 8))
                writer.append(
                    np.sin(number[:, None] * 1.7 + np.arange(64)).astype(np.float32),
                    number % 3,
                    [f"image {k}" for k in number],
                    stop=int(number[-1]) + 1,
                    row_metadata={"group": [f"group {k % 4}" for k in number]},
                )
                time.sleep(pause)
            entry = writer.publish()
    except CacheError as error:
        sys.stdout.write(f"{error}\n")
        return 3
    os.environ.pop("FAULT_ROOT", None)  # from here on it is the test that reads
    sys.stdout.write(hashlib.sha256(entry.path.read_bytes()).hexdigest() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
