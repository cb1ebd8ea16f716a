"""Lies: indexes whose own digests fit, but which say what cannot be."""

from __future__ import annotations

import copy
import json
import random
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, Store, sha256_of
from cache.entry import Entry, load
from cache.errors import InvalidInputError
from cache.keys import canonical_json
from cache.layout import DefectError, memory_bound
from cache.parse import parse_index
from cache.verified import VerifiedFiles
from tests.cache import forge
from tests.cache.conftest import key_of, metadata


def set_in(*path: Any) -> forge.Change:
    """Return a change that puts the last value where the path before it leads."""
    *way, last, value = path

    def change(index: dict[str, Any]) -> None:
        place: Any = index
        for step in way:
            place = place[step]
        place[last] = value

    return change


def array(name: str, **values: Any) -> forge.Change:
    return lambda index: index["arrays"][name].update(values)


def shift(name: str, by: int) -> forge.Change:
    def change(index: dict[str, Any]) -> None:
        index["arrays"][name]["offset"] += by

    return change


def onto(name: str, other: str) -> forge.Change:
    def change(index: dict[str, Any]) -> None:
        index["arrays"][name]["offset"] = index["arrays"][other]["offset"] + 8

    return change


LIES: dict[str, tuple[forge.Change, str]] = {
    "array missing": (lambda index: index["arrays"].pop("ids"), "other arrays"),
    "array added": (lambda index: index["arrays"].update(more=index["arrays"]["ids"]), "other arrays"),
    "field missing": (lambda index: index.pop("coordinates"), "lacks fields"),
    "field added": (set_in("author", "me"), "lacks fields"),
    "object dtype": (array("features", dtype="|O"), "forbidden dtype"),
    "big-endian": (array("features", dtype=">f4"), "forbidden dtype"),
    "float64": (array("features", dtype="<f8"), "forbidden dtype"),
    "structured": (array("labels", dtype=[["a", "<i8"]]), "forbidden dtype"),
    "void": (array("labels", dtype="|V8"), "forbidden dtype"),
    "unicode ids": (array("ids", dtype="<U16"), "forbidden dtype"),
    "wide ids": (array("ids", dtype="|S99999"), "forbidden dtype"),
    "dtype newline": (array("features", dtype="<f4\n"), "forbidden dtype"),
    "huge shape": (array("features", shape=[2**40, 2**21]), "wrong number of block digests"),
    "absurd shape": (array("features", shape=[10**4000, 4]), "have no shape"),
    "overflowing shape": (array("features", shape=[2**62, 2**62]), "wrong number of block digests"),
    "negative shape": (array("features", shape=[-6, -4]), "have no shape"),
    "zero rows": (array("features", shape=[0, 4], blocks=[]), "have no shape"),
    "float shape": (array("features", shape=[6.0, 4]), "have no shape"),
    "bool shape": (array("features", shape=[True, 24]), "have no shape"),
    "text shape": (array("features", shape="64"), "have no shape"),
    "flat features": (array("features", shape=[24]), "wrong shape"),
    "3-d features": (array("features", shape=[6, 2, 2]), "wrong shape"),
    "negative offset": (array("features", offset=-8), "have no offset"),
    "offset in index": (array("features", offset=72), "overlap the user block"),
    "offset behind end": (array("features", offset=1 << 40), "of a file of"),
    "offset absurd": (array("features", offset=10**4000), "have no offset"),
    "offset odd": (shift("labels", 1), "multiple of 8"),
    "overlap": (onto("labels", "features"), "overlap"),
    "rows differ": (array("labels", shape=[5]), "different numbers of rows"),
    "transposed": (array("features", shape=[4, 6]), "different numbers of rows"),
    "blocks missing": (array("features", blocks=[]), "wrong number of block digests"),
    "blocks no digests": (array("features", blocks=["x"]), "no block digests"),
    "block size": (set_in("block_bytes", 4096), "blocks have another size"),
    "labels of multi-label": (array("labels", dtype="|i1"), "are not .* int64"),
    "multi-label without": (set_in("multi_label", True), "are not .* int8"),
    "multi_label one": (set_in("multi_label", 1), "neither yes nor no"),
    "no classes": (set_in("class_names", []), "at least one name"),
    "class twice": (set_in("class_names", ["a", "a", "b"]), "occurs twice"),
    "class escape": (set_in("class_names", ["\x1b[2J", "a", "b"]), "control character"),
    "class newline": (set_in("class_names", ["a\nb", "a", "b"]), "control character"),
    "class mirrored": (set_in("class_names", ["a\u202eb", "a", "b"]), "control character"),
    "class long": (set_in("class_names", ["x" * 1025, "a", "b"]), "longer than"),
    "fewer classes": (set_in("class_names", ["a", "b"]), "expected 0 ... 1 for 2 classes"),
    "nested coordinates": (set_in("coordinates", "backbone", {"a": 1}), "is no text"),
    "huge number": (set_in("coordinates", "backbone", 10**400), "is no text"),
    "coordinates list": (set_in("coordinates", []), "no mapping"),
    "rows of metadata": (set_in("row_metadata", "group", ["a"]), "one value for each"),
    "metadata number": (set_in("row_metadata", "group", [1] * 6), "is no text"),
    "excluded odd": (set_in("excluded", [["a"]]), r"no \[id, reason\]"),
    "no ingredients": (set_in("ingredients", {}), "no ingredients"),
    "other ingredients": (set_in("ingredients", "backbone", "vgg16"), "holds the key"),
    "data digest": (set_in("data_sha256", "0" * 64), "its data hash to"),
    "data digest odd": (set_in("data_sha256", "0" * 63), "no digest of the data"),
}  # fmt: skip


def reason(raw: bytes, tmp_path: Path) -> str:
    path = forge.place(raw, tmp_path / "lie.h5")
    with pytest.raises(DefectError) as caught:
        load(path, key_of().digest, VerifiedFiles(tmp_path / "private"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_for_its_own_reason(raw: bytes, tmp_path: Path, name: str) -> None:
    change, expected = LIES[name]
    pattern = re.compile(expected)
    assert pattern.search(reason(forge.changed(raw, change), tmp_path))


BAD_JSON = {
    "spaces": lambda plain: plain.replace(b":", b": ", 1),
    "key twice": lambda plain: b'{"arrays":{},' + plain[1:],
    "nan": lambda plain: plain.replace(b'"multi_label":false', b'"multi_label":NaN'),
    "no object": lambda plain: b"[1,2,3]",
    "deep": lambda plain: b"[" * 20_000 + b"]" * 20_000,
    "deep object": lambda plain: b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "no utf-8": lambda plain: plain.replace(b"class", b"cl\xffss", 1),
    "lone surrogate": lambda plain: plain.replace(b"class 0", b"\\ud800", 1),
    "many digits": lambda plain: plain.replace(b'"block_bytes":', b'"block_bytes":' + b"9" * 5000, 1),
    "infinity": lambda plain: plain.replace(b'"block_bytes":', b'"block_bytes":1e999,"x":', 1),
    "empty": lambda plain: b"",
    "trailing": lambda plain: plain + b" ",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_is_not_canonical_is_refused(raw: bytes, tmp_path: Path, name: str) -> None:
    plain = canonical_json(forge.index_of(raw)[0])
    assert "its index" in reason(forge.with_index(raw, BAD_JSON[name](plain)), tmp_path)


def repeated(piece: str, count: int = 5000) -> bytes:
    """Return a JSON list of so many pieces, numbered where they ask for it."""
    return b'{"a":[' + ",".join(piece.replace("#", f"{k:05d}") for k in range(count)).encode() + b"]}"


BLOAT = {
    "lists": repeated("[]"),
    "objects": repeated("{}"),
    "small objects": repeated('{"a":1}'),
    "one large object": b'{"a":{' + b",".join(b'"%05d":1' % k for k in range(5500)) + b"}}",
    "integers": repeated("1#"),
    "the same integer": repeated("1"),
    "fractions": repeated("1.5"),
    "texts": repeated('"#"'),
    "empty texts": repeated('""'),
    "wide text": '{"a":"\U0001f600'.encode() + b"x" * 30_000 + b'"}',
    "wide texts": repeated('"\U0001f600 and some more letters #"', 1000),
    "nested lists": repeated("[[[[]]]]"),
    "deep lists": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "samples": repeated('["train/class/image_#.jpg","' + "a" * 64 + '"]', 1000),
}


@pytest.mark.parametrize("name", BLOAT)
def test_an_index_takes_no_more_memory_than_its_bound(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DefectError):
            parse_index(BLOAT[name], 1 << 16, 1 << 40)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= memory_bound(BLOAT[name])


@pytest.mark.parametrize("name", ["lists", "objects", "the same integer"])
def test_an_index_that_would_bloat_is_refused_undecoded(raw: bytes, tmp_path: Path, name: str) -> None:
    lie = forge.changed(raw, set_in("ingredients", json.loads(BLOAT[name])))
    assert "much more memory than the file" in reason(lie, tmp_path)


def test_a_narrow_table_with_many_rows_gets_a_user_block_for_its_index(store: Store) -> None:
    """100 bytes of index and 20 bytes of values a row: the bound on memory must not refuse it."""
    rows = 3000
    samples = [[f"image {k}", sha256_of(k)] for k in range(rows)]
    key = CacheKey.from_ingredients({"samples": samples})
    ids = [name for name, _ in samples]
    with store.writer(key, metadata(rows)) as writer:
        writer.append(np.ones((rows, 2), np.float32), np.zeros(rows, np.int64), ids, stop=rows)
        path = writer.publish().path
    assert load(path, key.digest, VerifiedFiles(path.parent / "other")).ids[-1] == ids[-1]


VALUES = {
    "nan": ("features", 16, np.array([np.nan], "<f4").tobytes(), "row 1 .* not finite"),
    "infinity": ("features", 80, np.array([-np.inf], "<f4").tobytes(), "row 5 .* not finite"),
    "label": ("labels", 8, np.array([3], "<i8").tobytes(), "expected 0 ... 2"),
    "negative label": ("labels", 8, np.array([-1], "<i8").tobytes(), "expected 0 ... 2"),
    "id twice": ("ids", 17, b"bild-00000\xc3\xa9.jpg\0", "occurs twice"),
    "id no utf-8": ("ids", 0, b"\xff", "no UTF-8"),
    "id empty": ("ids", 0, bytes(16), "no text"),
    "id escape": ("ids", 0, b"\x1b", "control character"),
    "id with zero": ("ids", 2, b"\0", "control character"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_make_no_sense_are_refused(raw: bytes, tmp_path: Path, name: str) -> None:
    which, offset, values, expected = VALUES[name]
    if which == "ids":
        offset = 0 if offset == 0 else offset
        width = int(forge.index_of(raw)[0]["arrays"]["ids"]["dtype"][2:])
        offset = width if name == "id twice" else offset
        values = values[:width]
    pattern = re.compile(expected)
    assert pattern.search(reason(forge.rewritten(raw, which, offset, values), tmp_path))


def leaves(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to every place in a JSON value."""
    found = [way] if way else []
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += leaves(inner, (*way, step))
    return found


def odd_value(dice: random.Random, found: Any) -> Any:
    """Return something else than what was there, near it or far from it."""
    if isinstance(found, int) and not isinstance(found, bool) and dice.random() < 0.6:
        return found + dice.choice([-1, 1, 8, -8, 4096, -4096, 2**31, 2**63, -(2**63)])
    if isinstance(found, str) and found and dice.random() < 0.5:
        at = dice.randrange(len(found))
        return found[:at] + dice.choice(["", "\0", "é", "x", "\n"]) + found[at + 1 :]
    choices = [
        None,
        True,
        0,
        -1,
        2**53,
        10**30,
        1.5,
        "",
        "x",
        [],
        {},
        [0],
        [[]],
        {"a": 1},
        "|S8",
        "<f2",
        [6, 2],
    ]
    return dice.choice(choices)


def mutate(index: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """Change one to three places of an index."""
    index = copy.deepcopy(index)
    for _ in range(dice.choice([1, 1, 2, 3])):
        *way, last = dice.choice(leaves(index))
        place: Any = index
        for step in way:
            place = place[step]
        if dice.random() < 0.15:
            del place[last]
        elif isinstance(place, dict) and dice.random() < 0.1:
            place[str(dice.random())] = odd_value(dice, None)
        else:
            place[last] = odd_value(dice, place[last])
        if not index:
            break
    return index


def claimed_key(index: dict[str, Any]) -> str:
    """Return the key that a mutated index would be looked up under."""
    try:
        return forge.digest_of_plain(index)
    except (KeyError, TypeError, InvalidInputError):
        return key_of().digest


def check_inside(entry: Entry, size: int) -> None:
    """Every array lies in the file; reading all of it does not crash."""
    for spec in entry.index.arrays.values():
        assert 0 <= spec.offset <= spec.offset + spec.nbytes <= size
    assert np.isfinite(entry.features).all()
    assert len(entry.ids) == len(entry.labels) == len(entry.features)


@pytest.mark.parametrize("count", [1500, pytest.param(50_000, marks=pytest.mark.slow)])
def test_mutated_indexes_never_harm_the_reader(raw: bytes, tmp_path: Path, count: int) -> None:
    index, block_bytes = forge.index_of(raw)
    dice = random.Random(11)
    verified = VerifiedFiles(tmp_path / "private")
    refused = slowest = 0.0
    tracemalloc.start()
    for _ in range(count):
        lie = mutate(index, dice)
        try:
            data = forge.with_index(raw, forge.fitting(lie, raw, block_bytes) if dice.random() < 0.5 else lie)
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            InvalidInputError,
            OverflowError,
            MemoryError,
        ):
            data = forge.with_index(raw, lie)
        path = forge.place(data, tmp_path / "lie.h5")
        key = claimed_key(lie)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        start = time.process_time()  # a machine that is busy elsewhere is no hang
        try:
            check_inside(load(path, key, verified), len(data))
        except DefectError:
            refused += 1
        slowest = max(slowest, time.process_time() - start)
        assert tracemalloc.get_traced_memory()[1] - before <= len(data)
    tracemalloc.stop()
    assert slowest < 1.0
    assert refused > count / 2
