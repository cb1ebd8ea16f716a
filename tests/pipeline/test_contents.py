"""Entries whose bytes are sound and whose contents are not those that their keys speak of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, DamagedEntryError, Entry, Store
from cache.annotations import Annotations
from cache.foreign import import_features
from cache.remote import Remote
from cache.share import pull, push
from pipeline.cache_folder import open_store
from pipeline.contents import untrue

Forgery = Callable[[dict[str, Any]], None]


def other_labels(parts: dict[str, Any]) -> None:
    parts["labels"] = parts["labels"][::-1].copy()


def other_classes(parts: dict[str, Any]) -> None:
    parts["class_names"] = parts["class_names"][::-1]


def other_ids(parts: dict[str, Any]) -> None:
    parts["ids"] = ["somebody else.png", *parts["ids"][1:]]


def fewer_rows(parts: dict[str, Any]) -> None:
    for name in ("features", "labels", "ids"):
        parts[name] = parts[name][:3]


def left_out(parts: dict[str, Any]) -> None:
    parts["excluded"] = [(parts["ids"][0], "not readable")]
    for name in ("features", "labels", "ids"):
        parts[name] = parts[name][1:]


def grouped(parts: dict[str, Any]) -> None:
    parts["groups"] = ["one"] * len(parts["ids"])


def half_as_wide(parts: dict[str, Any]) -> None:
    parts["features"] = parts["features"].astype(np.float16)


FORGERIES = {
    other_labels: "its labels, class names or groups",
    other_classes: "its labels, class names or groups",
    grouped: "its labels, class names or groups",
    other_ids: "its ids",
    fewer_rows: "its ids",
    left_out: "its key allows for no image to be left out",
    half_as_wide: "its features are float16",
}


def forge(true: Entry, store: Store, forgery: Forgery) -> None:
    """Write an entry under a key that speaks of another one."""
    parts: dict[str, Any] = {
        "features": np.array(true.features),
        "labels": np.array(true.labels),
        "ids": list(true.ids),
        "class_names": list(true.metadata["class_names"]),
        "excluded": [],
        "groups": list(true.row_metadata.get("group", [None] * len(true.ids))),
    }
    forgery(parts)
    rows = len(parts["ids"]) + len(parts["excluded"])
    metadata = {
        "coordinates": true.metadata["coordinates"],
        "class_names": parts["class_names"],
        "multi_label": true.metadata["multi_label"],
        "expected_rows": rows,
    }
    with store.writer(CacheKey.from_ingredients(true.key.ingredients), metadata) as writer:
        writer.append(
            parts["features"], parts["labels"], parts["ids"], stop=rows, excluded=parts["excluded"],
            row_metadata={"group": parts["groups"][: len(parts["ids"])]},
        )  # fmt: skip
        writer.publish()


@pytest.fixture
def true(workshop) -> Entry:
    """An entry of the training images of a study."""
    workshop.images()
    workshop.publish(workshop.load())
    return open_store().read(open_store().find_one(split="train").key)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_an_entry_that_is_not_what_its_key_says_is_damage(true, tmp_path, forgery):
    assert untrue(true) is None
    careless = Store(tmp_path / "other" / "features", private=tmp_path / "private")
    forge(true, careless, forgery)
    assert careless.read(true.key).ids  # its bytes are sound
    store = open_store(tmp_path / "other")
    with pytest.raises(DamagedEntryError, match=FORGERIES[forgery]):
        store.read(true.key)
    assert true.key not in store


def test_a_forged_entry_is_refused_where_it_is_pulled(true, tmp_path):
    careless = Store(tmp_path / "other", private=tmp_path / "private")
    forge(true, careless, other_labels)
    remote = Remote(str(tmp_path / "remote"))
    push(careless, remote, [true.key])
    store = open_store(tmp_path / "mine")
    with pytest.raises(DamagedEntryError, match="not those in its key"):
        pull(store, remote, [true.key])
    assert list(store.keys()) == []


def test_own_features_with_other_labels_are_damage(tmp_path):
    own = Annotations(("a", "b", "c"), np.array([0, 1, 1]), ("cat", "dog"), False, (None, "x", "x"))
    np.save(tmp_path / "own.npy", np.ones((3, 2), np.float32))
    true = import_features(
        open_store(), tmp_path / "own.npy", own, {"backbone": "mine", "dataset": "d", "split": "train"}
    )
    assert untrue(true) is None
    careless = Store(tmp_path / "other" / "features", private=tmp_path / "private")
    forge(true, careless, other_labels)
    with pytest.raises(DamagedEntryError, match="its labels are not those"):
        open_store(tmp_path / "other").read(true.key)
