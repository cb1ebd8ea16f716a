"""Strict parsing of an index that may come from anybody: types, bounds, overlap, agreement."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cache.errors import InvalidInputError
from cache.head import leading_fields
from cache.index import ARRAY_NAMES, BLOCK_BYTES, ArraySpec, Index, block_count
from cache.keys import canonical_json, canonical_pieces
from cache.layout import DefectError, is_bloated, memory_bound
from cache.names import check_class_names, check_columns, check_coordinates, check_excluded

_FIELDS = {
    "arrays", "block_bytes", "class_names", "coordinates", "data_sha256", "excluded",
    "ingredients", "multi_label", "row_metadata",
}  # fmt: skip
_LARGEST = 2**62
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_DTYPES = {
    "features": re.compile(r"<f[42]\Z"),
    "labels": re.compile(r"(<i8|\|i1)\Z"),
    "ids": re.compile(r"\|S[1-9][0-9]{0,3}\Z"),
}


def parse_index(raw: bytes, block_bytes: int, file_bytes: int, *, known: bool = False) -> Index:
    """Turn the bytes of an index into one that can be believed about types, bounds and overlap.

    Parameters
    ----------
    raw : bytes
        Canonical JSON.
    block_bytes : int
        Size of the user block: no array lies before its end.
    file_bytes : int
        Size of the file: no array reaches beyond it.
    known : bool
        These very bytes were checked before: spelling and row metadata are not checked again.

    Raises
    ------
    DefectError
        With the first defect found.
    """
    if known:
        plain = _known(raw)
    else:
        _refuse_bloat(raw, file_bytes)
        plain = _plain(raw)
    arrays = _arrays(plain["arrays"])
    _check_places(arrays, block_bytes, file_bytes)
    try:
        if known:
            columns = {name: tuple(column) for name, column in plain["row_metadata"].items()}
        else:
            columns = check_columns(plain["row_metadata"], arrays["features"].shape[0])
        index = Index(
            ingredients_json=plain["ingredients"],
            coordinates=check_coordinates(plain["coordinates"]),
            class_names=check_class_names(plain["class_names"]),
            multi_label=plain["multi_label"],
            row_metadata=columns,
            excluded=check_excluded(plain["excluded"]),
            arrays=arrays,
            data_sha256=plain["data_sha256"],
        )
    except InvalidInputError as error:
        raise DefectError(f"its index is wrong: {error}") from error
    _check_labels(index)
    return index


def _known(raw: bytes) -> dict[str, Any]:
    """Decode an index that was checked before; its ingredients stay the bytes that they are."""
    text = raw.decode("utf-8")
    try:
        plain, begin = leading_fields(text)
        # No later field spells this, nor can a text, in which quotes are escaped.
        end = max(text.rfind(f',"multi_label":{value},"row_metadata":{{') for value in ("false", "true"))
        _need(end > begin, "its index lacks fields or has others")
        plain.update(json.loads("{" + text[end + 1 :]))
    except (ValueError, RecursionError) as error:
        raise DefectError(f"its index is no canonical JSON ({ascii(str(error))[:80]})") from error
    plain["ingredients"] = text[begin:end].encode("utf-8")
    return plain


def _plain(raw: bytes) -> dict[str, Any]:
    """Decode canonical JSON with exactly the fields of an index; its ingredients are bytes again."""
    try:
        plain = json.loads(raw.decode("utf-8"))
        _need(isinstance(plain, dict), "its index is no JSON object")
        _need(_is_canonical(plain, raw), "its index is no canonical JSON")
    except (ValueError, RecursionError) as error:
        raise DefectError(f"its index is no canonical JSON ({ascii(str(error))[:80]})") from error
    _need(set(plain) == _FIELDS, "its index lacks fields or has others")
    _need(
        type(plain["block_bytes"]) is int and plain["block_bytes"] == BLOCK_BYTES,
        "its blocks have another size",
    )
    _need(type(plain["multi_label"]) is bool, "its index says neither yes nor no to multi_label")
    _need(_is_digest(plain["data_sha256"]), "its index has no digest of the data")
    _need(
        isinstance(plain["ingredients"], dict) and bool(plain["ingredients"]), "its index has no ingredients"
    )
    return {**plain, "ingredients": canonical_json(plain["ingredients"], parsed=True)}


def _refuse_bloat(raw: bytes, file_bytes: int) -> None:
    """Refuse an index whose values would take much more memory than the file has bytes."""
    _need(
        not is_bloated(memory_bound(raw), file_bytes),
        "its index would take much more memory than the file has bytes",
    )


def _is_canonical(plain: dict[str, Any], raw: bytes) -> bool:
    """Whether the values are spelled in these bytes the one way there is."""
    position = 0
    for piece in canonical_pieces(plain, parsed=True):
        if not raw.startswith(piece, position):
            return False
        position += len(piece)
    return position == len(raw)


def _arrays(plain: object) -> dict[str, ArraySpec]:
    """Check the description of each array by itself."""
    if not isinstance(plain, dict) or set(plain) != set(ARRAY_NAMES):
        raise DefectError(f"its index describes other arrays than {', '.join(ARRAY_NAMES)}")
    return {name: _array(name, plain[name]) for name in ARRAY_NAMES}


def _array(name: str, plain: object) -> ArraySpec:
    """Check one array's dtype, shape, offset and block digests."""
    if not isinstance(plain, dict) or set(plain) != {"blocks", "dtype", "offset", "shape"}:
        raise DefectError(f"its index does not describe {name} as it should")
    dtype, shape, offset, blocks = (plain[part] for part in ("dtype", "shape", "offset", "blocks"))
    _need(isinstance(dtype, str) and bool(_DTYPES[name].match(dtype)), f"{name} have a forbidden dtype")
    _need(isinstance(shape, list) and all(_is_size(n) and n > 0 for n in shape), f"{name} have no shape")
    _need(len(shape) in {"features": {2}, "labels": {1, 2}, "ids": {1}}[name], f"{name} have a wrong shape")
    _need(_is_size(offset), f"{name} have no offset")
    _need(isinstance(blocks, list) and all(map(_is_digest, blocks)), f"{name} have no block digests")
    spec = ArraySpec(dtype=dtype, shape=tuple(shape), offset=offset, blocks=tuple(blocks))
    _need(len(blocks) == block_count(spec.nbytes), f"{name} have a wrong number of block digests")
    return spec


def _check_places(arrays: Mapping[str, ArraySpec], block_bytes: int, file_bytes: int) -> None:
    """Every array lies behind the user block, inside the file, aligned, and apart from the others."""
    end, last = block_bytes, "the user block"
    for name, spec in sorted(arrays.items(), key=lambda item: item[1].offset):
        _need(spec.offset >= end, f"{name} overlap {last}")
        end, last = spec.offset + spec.nbytes, name
        _need(end <= file_bytes, f"{name} end at byte {end} of a file of {file_bytes}")
        _need(spec.offset % 8 == 0, f"{name} begin at byte {spec.offset}, no multiple of 8")
    rows = {spec.shape[0] for spec in arrays.values()}
    _need(len(rows) == 1, "its arrays have different numbers of rows")


def _check_labels(index: Index) -> None:
    """The labels' dtype and shape fit the kind of task."""
    labels = index.arrays["labels"]
    classes = len(index.class_names)
    if index.multi_label:
        _need(labels.dtype == "|i1" and labels.shape[1:] == (classes,), f"labels are not (n, {classes}) int8")
    else:
        _need(labels.dtype == "<i8" and len(labels.shape) == 1, "labels are not (n,) int64")


def _need(condition: bool, otherwise: str) -> None:
    """Refuse the index with a reason."""
    if not condition:
        raise DefectError(otherwise)


def _is_size(value: object) -> bool:
    """Whether a value is a whole number that a file could have as size or offset."""
    return type(value) is int and 0 <= value <= _LARGEST


def _is_digest(value: object) -> bool:
    """Whether a value is 64 hexadecimal digits."""
    return isinstance(value, str) and bool(_HEX.match(value))
