"""What an entry is named by: SHA-256 of canonical JSON over everything that decides its content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from cache.errors import InvalidInputError

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def canonical_json(obj: Any, *, parsed: bool = False) -> bytes:
    """Encode an object so that equal content gives equal bytes.

    Keys are sorted by code point, nothing is padded, text is UTF-8. An int and a float of the same
    value stay different: ``1`` and ``1.0`` are two spellings of an ingredient.

    Parameters
    ----------
    obj : object
        Mappings with str keys, lists, tuples, str, int, float, bool, None.
    parsed : bool
        Whether its keys are str for certain, as those are that ``json.loads`` gives, and need no look.

    Returns
    -------
    bytes

    Raises
    ------
    InvalidInputError
        NaN or an infinity, a key that is no str, a type that JSON does not have, a lone surrogate.

    Examples
    --------
    >>> canonical_json({"b": (1, 2.5), "a": "é"}).decode()
    '{"a":"é","b":[1,2.5]}'
    """
    try:
        if not parsed:
            _refuse_other_keys(obj)
        text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"no canonical JSON for {type(obj).__name__}: {error}") from error


def canonical_pieces(mapping: Mapping[str, Any], *, parsed: bool = False) -> Iterator[bytes]:
    """Yield the canonical JSON of a mapping field by field, so that no more than one lies in memory.

    Parameters
    ----------
    mapping : mapping
    parsed : bool
        As `canonical_json`.

    Raises
    ------
    InvalidInputError
        As `canonical_json`.

    Examples
    --------
    >>> b"".join(canonical_pieces({"b": 1, "a": [2]})) == canonical_json({"b": 1, "a": [2]})
    True
    """
    before = b"{"
    for name in sorted(mapping):
        yield before + canonical_json(name) + b":"
        yield canonical_json(mapping[name], parsed=parsed)
        before = b","
    yield b"}" if mapping else b"{}"


def sha256_of(obj: Any, *, parsed: bool = False) -> str:
    """Return the SHA-256 of the canonical JSON of an object, 64 hex digits.

    Parameters
    ----------
    obj : object
    parsed : bool
        As `canonical_json`.

    Raises
    ------
    InvalidInputError
        As `canonical_json`.

    Examples
    --------
    >>> sha256_of({"a": 1})[:16]
    '015abd7f5cc57a2d'
    """
    return hashlib.sha256(canonical_json(obj, parsed=parsed)).hexdigest()


@dataclass(frozen=True)
class CacheKey:
    """The name of an entry, with what it was made from.

    Examples
    --------
    >>> key = CacheKey.from_ingredients({"backbone": "resnet50", "recipe_version": 1})
    >>> str(key)[:8], key.ingredients["backbone"]
    ('d7c8642c', 'resnet50')
    """

    digest: str
    """SHA-256 of the canonical JSON of the ingredients, 64 hex digits."""
    ingredients: Mapping[str, Any] = field(compare=False, repr=False)
    """Plain JSON values; the cache does not know what they mean."""
    proved: InitVar[bool] = False
    """The maker has just computed the digest from these ingredients: it is not computed once more."""

    def __post_init__(self, proved: bool) -> None:
        if not proved and sha256_of(self.ingredients) != self.digest:
            raise InvalidInputError(f"key {self.digest!r} is not the digest of its ingredients")

    @classmethod
    def from_ingredients(cls, mapping: Mapping[str, Any]) -> CacheKey:
        """Name an entry after everything that decides its content.

        Raises
        ------
        InvalidInputError
            The mapping is empty or has no canonical JSON.
        """
        text = canonical_json(dict(mapping))
        if not mapping:
            raise InvalidInputError("a key needs at least one ingredient")
        return cls(hashlib.sha256(text).hexdigest(), json.loads(text), proved=True)

    def __str__(self) -> str:
        return self.digest


def digest_of_key(key: CacheKey | str) -> str:
    """Return the 64 hex digits of a key, refusing everything else.

    Raises
    ------
    InvalidInputError
        A text that is no digest; it might have been meant as a path.
    """
    digest = key.digest if isinstance(key, CacheKey) else key
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        raise InvalidInputError(f"{str(digest)[:80]!r} is no cache key: expected 64 hexadecimal digits")
    return digest


_LEAVES = frozenset({str, int, float, bool, type(None)})


def _refuse_other_keys(obj: Any) -> None:
    """Refuse mapping keys that json would silently turn into text; a call for each leaf would be slow."""
    kind = type(obj)
    if kind is dict or (kind is not list and isinstance(obj, Mapping)):  # the look at Mapping is slow
        for name in obj:
            if not isinstance(name, str):
                raise TypeError(f"mapping key {name!r} is no text")
        values = obj.values()
    elif isinstance(obj, list | tuple):
        values = obj
    else:
        return
    if not _LEAVES.issuperset(map(type, values)):
        for value in values:
            if type(value) not in _LEAVES:
                _refuse_other_keys(value)
