"""What a staging log says is checked before rows of it are published; callers' batches are as well."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, InvalidInputError, Store
from cache.keys import canonical_json
from cache.staging import LOG_NAME

KEY = CacheKey.from_ingredients({"a": 1})
METADATA: dict[str, Any] = {
    "coordinates": {"backbone": "x"},
    "class_names": ["c"],
    "multi_label": False,
    "expected_rows": 2,
}
OPENING = {**METADATA, "ingredients": {"a": 1}, "arrays": {"dimension": 3, "features_dtype": "<f4"}}
HEADER = {"excluded": [], "features_bytes": 12, "ids": ["a"], "row_metadata": {}, "stop": 1}


def frame(header: Any, features: float = 1.0, label: int = 0, *, empty: bool = False) -> bytes:
    text = header if isinstance(header, bytes) else canonical_json(header)
    values = np.full(3, features, "<f4").tobytes() + np.full(1, label, "<i8").tobytes()
    payload = b"" if empty else values
    head = struct.pack("<8sQQ", b"PNFRAME1", len(text), len(payload)) + text
    return head + payload + hashlib.sha256(head + payload).digest()


def opening(**changes: Any) -> bytes:
    return frame({**OPENING, **changes}, empty=True)


BAD = {
    "no json": [frame(b"{", empty=True), frame(b"{}")],
    "deep json": [opening(), frame(b"[" * 100_000)],
    "no object": [frame(b"[]", empty=True), frame(b"[]")],
    "no batch": [opening(), frame(b"{}")],
    "no arrays": [frame({k: v for k, v in OPENING.items() if k != "arrays"}, empty=True), frame(HEADER)],
    "odd arrays": [opening(arrays={"dimension": 3, "features_dtype": "|O"}), frame(HEADER)],
    "true for one": [opening(arrays={"dimension": True, "features_dtype": "<f4"}), frame(HEADER)],
    "stop is text": [opening(), frame({**HEADER, "stop": "1"})],
    "stop is a fraction": [opening(), frame({**HEADER, "stop": 1.0})],
    "nan": [opening(), frame(HEADER, np.nan)],
    "label": [opening(), frame(HEADER, label=77)],
    "cut elsewhere": [opening(), frame({**HEADER, "features_bytes": 4})],
    "control character": [opening(), frame({**HEADER, "ids": ["\n"]})],
    "ids are text": [opening(), frame({**HEADER, "ids": "a"})],
    "columns are a list": [opening(), frame({**HEADER, "row_metadata": []})],
}


def finished(store: Store) -> Any:
    """Go on with what is staged, and publish."""
    with store.writer(KEY, METADATA) as writer:
        begun = writer.next_row
        for row in range(begun, 2):
            features = np.full((1, 3), 2, np.float32)
            writer.append(features, np.zeros(1, np.int64), ["ab"[row]], stop=row + 1)
        return begun, writer.publish()


def staged(tmp_path: Path, frames: list[bytes]) -> Store:
    store = Store(tmp_path / "cache", private=tmp_path / "private")
    store.staging_folder(KEY).mkdir(parents=True)
    (store.staging_folder(KEY) / LOG_NAME).write_bytes(b"".join(frames))
    return store


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_batch_is_a_torn_tail(tmp_path: Path, name: str) -> None:
    store = staged(tmp_path, BAD[name])
    with store.writer(KEY, METADATA) as writer:
        assert writer.next_row == 0
    assert (store.staging_folder(KEY) / LOG_NAME).stat().st_size == 0


def test_sound_rows_before_a_bad_one_stay(tmp_path: Path) -> None:
    bad = frame({**HEADER, "ids": ["b"], "stop": 2}, np.inf)
    begun, entry = finished(staged(tmp_path, [opening(), frame(HEADER), bad]))
    assert begun == 1
    np.testing.assert_array_equal(entry.features, [[1, 1, 1], [2, 2, 2]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": "ab"}, "ids are the text 'ab'"),
        ({"stop": 2.0}, "stop is 2.0: expected"),
        ({"features": np.ma.masked_equal(np.ones((2, 3), np.float32), 1)}, "masked array"),
        ({"row_metadata": {"group": "ab"}}, "is no list with one value"),
        ({"ids": ["a"], "features": np.ones((1, 3), np.float32), "labels": np.zeros(1, np.int64),
          "excluded": ["ab"]}, "no .id, reason."),
    ],
)  # fmt: skip
def test_batches_that_were_not_meant_so(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    store = Store(tmp_path / "cache", private=tmp_path / "private")
    batch = {"features": np.ones((2, 3), np.float32), "labels": np.zeros(2, np.int64), "ids": ["a", "b"]}
    with store.writer(KEY, METADATA) as writer, pytest.raises(InvalidInputError, match=message):
        writer.append(**{**batch, "stop": 2, **changes})  # type: ignore[arg-type]
