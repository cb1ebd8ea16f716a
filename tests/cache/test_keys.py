from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CacheKey, InvalidInputError, canonical_json, sha256_of

INGREDIENTS: dict[str, Any] = {
    "recipe_version": 1,
    "weights_sha256": "a" * 64,
    "backbone": "tf_efficientnet_lite0",
    "pooling": None,
    "preprocessing": {
        "size": 224, "interpolation": "bicubic", "crop": "whole", "crop_fraction": 0.875,
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    },
    "dtype": "float32",
    "precision": "float32",
    "images": "b" * 64,
    "bad_image_policy": "error",
    "annotations": "c" * 64,
}  # fmt: skip
GOLDEN = "1a6d087b6979d53b240bcf33a5f93472da02e3485ae123c7eb38b7f90d847d4f"

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def test_a_golden_key_stays_what_it_is() -> None:
    assert CacheKey.from_ingredients(INGREDIENTS).digest == GOLDEN


def test_every_ingredient_counts() -> None:
    digests = {sha256_of(INGREDIENTS)}
    for name in INGREDIENTS:
        digests.add(sha256_of({**INGREDIENTS, name: "other"}))
        digests.add(sha256_of({k: v for k, v in INGREDIENTS.items() if k != name}))
    for name in INGREDIENTS["preprocessing"]:
        changed = {**INGREDIENTS["preprocessing"], name: "other"}
        digests.add(sha256_of({**INGREDIENTS, "preprocessing": changed}))
    assert len(digests) == 1 + 2 * len(INGREDIENTS) + len(INGREDIENTS["preprocessing"])


def test_order_and_kind_of_sequence_do_not_count() -> None:
    turned = dict(reversed(INGREDIENTS.items()))
    turned["preprocessing"] = {**INGREDIENTS["preprocessing"], "mean": (0.5, 0.5, 0.5)}
    assert CacheKey.from_ingredients(turned) == CacheKey.from_ingredients(INGREDIENTS)


@given(plain)
def test_canonical_json_survives_a_round_trip(value: Any) -> None:
    encoded = canonical_json(value)
    assert json.loads(encoded) == value
    assert canonical_json(json.loads(encoded)) == encoded


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: "a"}, {"a": {None: 1}}, b"bytes", {"a": {1, 2}}, "\ud800", object()],
)
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        canonical_json(value)


def test_a_key_cannot_claim_another_digest() -> None:
    with pytest.raises(InvalidInputError, match="is not the digest"):
        CacheKey(digest="0" * 64, ingredients={"a": 1})
    with pytest.raises(InvalidInputError, match="at least one ingredient"):
        CacheKey.from_ingredients({})
