"""The feature cache: arrays under keys, in files that can be trusted; nothing of models or data sets."""

from cache.catalogue import EntryInfo
from cache.digests import FileDigests
from cache.entry import Entry
from cache.errors import (
    AmbiguousKeyError,
    CacheError,
    CacheReadError,
    CacheWriteError,
    DamagedEntryError,
    InputChangedError,
    InvalidInputError,
    KeyMissingError,
    LockTimeoutError,
    NewerFormatError,
    RemoteError,
)
from cache.keys import CacheKey, canonical_json, sha256_of
from cache.store import Store
from cache.writer import Writer

__all__ = [
    "AmbiguousKeyError",
    "CacheError",
    "CacheKey",
    "CacheReadError",
    "CacheWriteError",
    "DamagedEntryError",
    "Entry",
    "EntryInfo",
    "FileDigests",
    "InputChangedError",
    "InvalidInputError",
    "KeyMissingError",
    "LockTimeoutError",
    "NewerFormatError",
    "RemoteError",
    "Store",
    "Writer",
    "canonical_json",
    "sha256_of",
]
