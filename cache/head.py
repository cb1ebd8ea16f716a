"""The head of an index: what a list shows stands in its first fields, so the rest need not be read.

An index is canonical JSON with sorted fields; those that grow with the rows (``ingredients``,
``row_metadata``) come last. A list of many entries therefore reads one or two pieces of each file, however
many rows it has. Where the whole index fits into the piece its digest is checked too; reading an entry checks all.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import math
import os
import stat
import struct
from pathlib import Path
from typing import Any

from cache.index import item_bytes
from cache.layout import FORMAT_VERSION, HEADER_BYTES, MAGIC
from cache.names import check_coordinates
from cache.system import READ_FLAGS, read_piece

PIECES = (1 << 14, 1 << 18)
"""Bytes that are read: most heads end in the first piece, those of a thousand classes in the second."""
_FIELDS = ("arrays", "block_bytes", "class_names", "coordinates", "data_sha256", "excluded")
_NEXT = ',"ingredients":'
_NUMBERS = struct.Struct("<16sIIQQ")
_DECODER = json.JSONDecoder()
_FEATURES = {"<f4", "<f2"}


def read_head(path: Path, key: str) -> tuple[os.stat_result, dict[str, Any]] | None:
    """Return a file's status and what a list shows of it, without the digests of its ingredients.

    Parameters
    ----------
    path : Path
        Of an entry.
    key : str
        That its name says; its index may say another, which reading the entry finds out.

    Returns
    -------
    tuple or None
        None where anything is not as expected: the whole index says what is wrong.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    """
    try:
        descriptor = os.open(path, READ_FLAGS)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            for count in PIECES:
                raw = read_piece(descriptor, count, 0)
                with contextlib.suppress(ValueError, TypeError, KeyError, IndexError, RecursionError):
                    return status, {
                        **_summary(leading_fields(_index_piece(raw))[0], status.st_size),
                        "key": key,
                    }
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _index_piece(raw: bytes) -> str:
    """Return the beginning of the index; where it is all there, only if its digest holds."""
    magic, version, zero, _, size = _NUMBERS.unpack_from(raw.ljust(_NUMBERS.size, b"\0"))
    if magic != MAGIC or (version, zero) != (FORMAT_VERSION, 0):
        raise ValueError("not an entry of this version")
    piece = raw[HEADER_BYTES : HEADER_BYTES + size]
    if len(piece) == size:
        digest = hashlib.sha256(raw[: _NUMBERS.size] + piece).digest()
        if digest != raw[_NUMBERS.size : HEADER_BYTES]:
            raise ValueError("another digest")
    return codecs.getincrementaldecoder("utf-8")().decode(piece)


def leading_fields(text: str) -> tuple[dict[str, Any], int]:
    """Decode the fields of an index in front of its ingredients; return them, and where those begin.

    Raises
    ------
    ValueError
        The text is no canonical index, or ends too early.
    """
    fields: dict[str, Any] = {}
    position = 0
    for name in _FIELDS:
        label = f'{"," if fields else "{"}"{name}":'
        if not text.startswith(label, position):
            raise ValueError(f"no {name} where it should stand")
        fields[name], position = _DECODER.raw_decode(text, position + len(label))
    if not text.startswith(_NEXT, position):
        raise ValueError("the piece ends too early")
    return fields, position + len(_NEXT)


def _summary(fields: dict[str, Any], file_bytes: int) -> dict[str, Any]:
    """Check what a list shows."""
    features, labels = fields["arrays"]["features"], fields["arrays"]["labels"]
    rows, dimension = features["shape"]
    sizes = (rows, dimension, *labels["shape"])
    if features["dtype"] not in _FEATURES or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError("no features")
    if math.prod((rows, dimension)) * item_bytes(features["dtype"]) > file_bytes:
        raise ValueError("more features than the file holds")
    names, excluded = fields["class_names"], fields["excluded"]
    if type(names) is not list or not names or type(excluded) is not list:
        raise ValueError("no class names")
    return {
        "classes": len(names),
        "coordinates": check_coordinates(fields["coordinates"]),
        "dimension": dimension,
        "dtype": features["dtype"],
        "excluded": len(excluded),
        "multi_label": len(labels["shape"]) == 2,
        "rows": rows,
    }
