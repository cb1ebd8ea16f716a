"""Reading an entry: by its index alone, verified before use, mapped from the descriptor that was verified."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import InvalidInputError
from cache.hashing import BytesDone, digest_of_range, read_at
from cache.index import ArraySpec, Index
from cache.keys import CacheKey, canonical_json
from cache.layout import DefectError, UserBlock, unpack
from cache.parse import parse_index
from cache.rows import check_finite, check_ids, check_labels
from cache.system import READ_FLAGS, kind_of
from cache.verified import VerifiedFiles

Known = Callable[[os.stat_result, str], bool]
"""Called with (status, index digest): was this state of the file verified?"""
Check = Callable[["Entry"], str | None]
"""Called with an entry whose bytes agree with each other; says what else is wrong with it."""

_PROVENANCE_BYTES = 1 << 20
_WRONG_KIND = {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EMLINK, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class OpenEntry:
    """An entry's open file with its index; the values are not verified yet."""

    file: IO[bytes]
    status: os.stat_result
    block: UserBlock
    index: Index
    known: bool
    """Whether every byte of this state of the file was verified before."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A verified entry of the cache.

    Examples
    --------
    ``store.read(key).features[:10]`` reads ten rows from disk and no more.
    """

    path: Path
    index: Index
    features: NDArray[np.floating[Any]]
    """(n, d) float32 or float16, a read-only `numpy.memmap`."""
    labels: NDArray[Any]
    """(n,) int64, index into the class names; multi-label (n, K) int8, -1 = ignore. Read-only."""
    raw_ids: NDArray[np.bytes_]
    """(n,) UTF-8 bytes, a read-only `numpy.memmap`."""

    @property
    def key(self) -> CacheKey:
        """The key, with its ingredients."""
        return self.index.key

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 over the values: what a result records to say what it was made from."""
        return self.index.content_digest

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Sample ids, one for each row, none twice."""
        return tuple(name.decode("utf-8") for name in self.raw_ids.tolist())

    @property
    def row_metadata(self) -> Mapping[str, tuple[str | None, ...]]:
        """Named columns with one text or None for each row."""
        return self.index.row_metadata

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """Everything else: coordinates, class_names, multi_label, expected_rows, excluded, provenance."""
        return {
            "class_names": self.index.class_names,
            "coordinates": dict(self.index.coordinates),
            "excluded": self.index.excluded,
            "expected_rows": self.index.rows + len(self.index.excluded),
            "multi_label": self.index.multi_label,
            "provenance": read_provenance(self.path),
        }


@contextlib.contextmanager
def open_entry(path: Path, known: Known | None = None) -> Iterator[OpenEntry]:
    """Open a file and believe nothing of it but an index that holds.

    ``known`` is asked whether this very state of the file was verified before.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    DefectError
        Something else than an entry there: another kind of file, a link, a wrong index.
    OSError
        It cannot be read, or there is too little memory for its index.
    """
    with open(path, "rb", opener=_open_regular, buffering=0) as file:
        status = os.fstat(file.fileno())

        def read(offset: int, count: int) -> bytes:
            return read_at(file.fileno(), offset, count)

        try:
            block = unpack(read, status.st_size)
            trusted = known is not None and known(status, block.index_sha256)
            index = parse_index(block.index, block.block_bytes, status.st_size, known=trusted)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from error
        yield OpenEntry(file=file, status=status, block=block, index=index, known=trusted)


def load(
    path: Path,
    digest: str,
    verified: VerifiedFiles,
    progress: BytesDone | None = None,
    proved: str | None = None,
    check: Check | None = None,
) -> Entry:
    """Open, verify and map one entry.

    Parameters
    ----------
    path : Path
        Where it lies.
    digest : str
        The key it has to have.
    verified : VerifiedFiles
        Files whose every byte was checked before are not hashed again.
    progress : callable, optional
        Gets (bytes hashed, bytes in all).
    proved : str, optional
        Index digest of a file that was proved a moment ago by those who built it.
    check : callable, optional
        Says what else is wrong with an entry whose bytes are sound.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    DefectError
        It is not the entry asked for, a byte of it is wrong, or the check found something.
    """

    def known(status: os.stat_result, index_sha256: str) -> bool:
        return index_sha256 == proved or verified.knows(status, index_sha256, digest)

    with open_entry(path, known) as opened:
        if not opened.known and opened.index.key_digest != digest:
            raise DefectError(f"holds the key {opened.index.key_digest}, expected {digest}")
        entry = map_entry(path, opened)
        if not opened.known:
            verify_values(entry, opened, progress, check)
            verified.remember(opened.status, opened.block.index_sha256, digest)
        return entry


def verify_values(
    entry: Entry, opened: OpenEntry, progress: BytesDone | None = None, check: Check | None = None
) -> None:
    """Hash every byte behind the index and check that the values make sense.

    Raises
    ------
    DefectError
        A byte differs, features are not finite, labels do not fit, ids repeat, or the check found something.
    """
    begin, size = opened.block.block_bytes, opened.status.st_size
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(digest_of_range, opened.file.fileno(), begin, size, progress)
        nonsense = _nonsense(entry)
        found = hashed.result()
    if found != entry.index.data_sha256:
        raise DefectError(
            f"its data hash to {found[:12]}..., the index says {entry.index.data_sha256[:12]}..."
        )
    if reason := nonsense or (check(entry) if check is not None else None):
        raise DefectError(reason)


def _nonsense(entry: Entry) -> str:
    """Say why the values make no sense; nothing where they do."""
    try:
        ids = check_ids(entry.raw_ids)
        check_finite(entry.features, ids)
        check_labels(entry.labels, entry.index.rows, len(entry.index.class_names), entry.index.multi_label)
    except InvalidInputError as error:
        return str(error)
    return ""


def read_provenance(path: Path) -> dict[str, Any]:
    """Return what the small file beside an entry tells; empty where there is none that could be passed on."""
    try:
        with open(path.with_suffix(".json"), "rb", opener=_open_regular) as file:
            plain = json.loads(file.read(_PROVENANCE_BYTES))
            canonical_json(plain)  # NaN and lone surrogates end here, not in the midst of an export or a push
    except (OSError, ValueError, RecursionError, DefectError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _open_regular(name: str, _flags: int) -> int:
    """Open a regular file and nothing else, without following a link or waiting for a pipe."""
    try:
        descriptor = os.open(name, READ_FLAGS)
    except OSError as error:
        if error.errno in _WRONG_KIND:
            kind = kind_of(os.lstat(name).st_mode)
            raise DefectError(f"is no regular file but {kind}") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DefectError(f"is no regular file but {kind_of(mode)}")
    return descriptor


def map_entry(path: Path, opened: OpenEntry) -> Entry:
    """Map the arrays from the open descriptor."""
    try:
        arrays = {name: _view(opened.file, spec) for name, spec in opened.index.arrays.items()}
    except ValueError as error:
        raise DefectError(f"cannot be mapped: it was cut while being read ({error})") from error
    return Entry(
        path=path,
        index=opened.index,
        features=arrays["features"],
        labels=arrays["labels"],
        raw_ids=arrays["ids"],
    )


def _view(file: IO[bytes], spec: ArraySpec) -> NDArray[Any]:
    """Map one array read-only."""
    return np.memmap(file, dtype=np.dtype(spec.dtype), mode="r", offset=spec.offset, shape=spec.shape)
