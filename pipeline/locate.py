"""Which cached entry stands for each split of each data set through each backbone of a study.

Where images and weights are on this machine the key is known. Where one of them is not, entries are found
by their human coordinates, and must have the rows and labels that the data set lists where that list is here.
A pin chooses one entry, and what it says must hold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache import CacheKey, Entry
from pipeline.choices import SHORT, Choice, choice_of, described
from pipeline.config import Study
from pipeline.ledger import differences
from pipeline.pins import Spot, pins_of
from pipeline.plan_extraction import DAMAGED, entry_key
from pipeline.resolve import Images, Resolved
from pipeline.same_labels import unlike
from pipeline.shelf import ANNOTATIONS, Shelf
from pipeline.tables import DatasetTable, PinTable
from pipeline.wanted import Wanted, wanted_coordinates
from stages.records import SPLITS, Dataset

SPELLINGS = frozenset({"dataset", "weights"})
"""Coordinates that two studies may spell differently for one key: where a pin tells the values, they are not held
against it."""


@dataclass(frozen=True)
class Located:
    """The entry of one spot, or why there is none."""

    key: str | None = None
    """Of an entry that is in the cache."""
    lacking: str = ""
    """What a reader must know where the entry is not here, beyond that."""
    conflict: str = ""
    """What stands between the pin and what is here: nothing may be computed from this spot."""
    choice: Choice | None = None
    """Several entries match."""
    pin: PinTable | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Question:
    """One spot, with what this machine knows of it."""

    spot: Spot
    wanted: Wanted
    pin: PinTable | None
    key: str | None
    """From images and weights; None where one of them is not here."""
    images: Images | None
    """None where the images are not here, or where features were imported, whatever they were made from."""
    rows: Dataset | None
    """What the data set lists; None where that is not known here."""
    table: DatasetTable
    compute: Callable[[], CacheKey | None]
    """The key with its ingredients, from images and weights."""

    def samples(self) -> list[list[str]]:
        """Return ids and hashes of the images that are here."""
        assert self.images is not None
        split = self.spot[2]
        pairs = zip(self.images.dataset.splits[split].ids, self.images.image_sha256[split], strict=True)
        return [list(pair) for pair in pairs]

    @property
    def name(self) -> str:
        """For messages."""
        return described(self.spot)

    def unlike(self, entry: Entry) -> str:
        """Say in what an entry has other rows or labels than the data set lists; nothing where it is not known."""
        split = self.spot[2]
        if self.rows is None or split not in self.rows.splits:
            return ""
        lacks = self.table.exclude_duplicates and split != "test"
        return unlike(entry, self.rows, split, source=self.table.source or self.table.name, may_lack=lacks)


def locate(
    study: Study, resolved: Resolved, keys: Mapping[Spot, str | None], shelf: Shelf
) -> dict[Spot, Located]:
    """Find the entry of every spot of a study.

    Parameters
    ----------
    study : Study
    resolved : Resolved
    keys : mapping of spot to str or None
        Keys of the spots whose images are here; None while their weights are unknown.
    shelf : Shelf

    Returns
    -------
    dict
        Spot to what was found; nothing is raised here.
    """
    pins = pins_of(study)
    found = {}
    for backbone in resolved.backbones:
        for table in study.dataset:
            images, rows = resolved.images.get(table.name), resolved.rows_of(table.name)
            for split in rows.splits if rows else SPLITS:
                spot = (backbone.label, table.name, split)
                wanted = wanted_coordinates(study, backbone, table.name, split)
                known = images if backbone.weights.kind != "cached" else None
                compute = functools.partial(entry_key, study, backbone, known, split) if known else _no_key
                question = _Question(
                    spot, wanted, pins.get(spot), keys.get(spot), known, rows, table, compute
                )
                found[spot] = _pinned(question, shelf) if spot in pins else _unpinned(question, shelf)
    return found


def _no_key() -> None:
    """There are no images here to compute a key from."""


def _unpinned(question: _Question, shelf: Shelf) -> Located:
    """Find an entry by its key, else by its coordinates, the labels and, where the images are here, their hashes."""
    if question.key is not None:
        if shelf.holds(question.key):
            return Located(question.key)
        return Located(lacking=DAMAGED if shelf.was_damaged(question.key) else "")
    found = [info.key for info in shelf.find(question.wanted)]
    if len(found) > 1 or (found and question.rows is not None):
        entries = [e for e in shelf.read(found) if _same_rows(question, e)]
        others = [question.unlike(entry) for entry in entries]
        fitting = [entry for entry, other in zip(entries, others, strict=True) if not other]
        if len(fitting) > 1:
            return Located(choice=choice_of(question.spot, fitting))
        if entries and not fitting:
            return _none_fits(question, others[0])
        found = [entry.key.digest for entry in fitting]
    return Located(found[0] if found else None)


def _none_fits(question: _Question, other: str) -> Located:
    """Say that what is found by its coordinates has other labels; they can be taken over where the images are."""
    if question.images is not None:
        return Located(lacking=f"cached with other labels ({other})")
    return Located(
        conflict=f"{question.spot[1]}/{question.spot[2]}: no cached features with these rows and labels: {other}: "
        "mend the list, or extract with it where the images are (new labels need no forward pass) and pull that, or "
        'say source = "cached" to go by the labels of the features'
    )


def _pinned(question: _Question, shelf: Shelf) -> Located:
    """Find the entry that is pinned, and hold what the pin says against what is here."""
    pin = question.pin
    assert pin is not None
    known = question.key
    if known is not None and known.startswith(pin.fingerprint):
        candidates = [known] if shelf.holds(known) else []
    else:
        candidates = [info.key for info in shelf.beginning(pin.fingerprint)]
    entries = shelf.read(candidates)
    if known is not None and not known.startswith(pin.fingerprint):
        key = question.compute()
        assert key is not None
        return Located(conflict=f"{question.name}: {_other_key(question, key, entries)}", pin=pin)
    if len(entries) > 1:
        keys = ", ".join(entry.key.digest[: SHORT + 4] for entry in entries)
        return Located(
            conflict=f"{question.name}: {len(entries)} keys begin with {pin.fingerprint} ({keys}); write more of it",
            pin=pin,
        )
    if not entries:
        damaged = f": {DAMAGED}" if shelf.was_damaged(pin.fingerprint) else ""
        lacking = f"the pinned entry {pin.fingerprint[:SHORT]} is not in the cache{damaged}"
        return Located(lacking=lacking, pin=pin)
    conflict = next(_conflicts(question, entries[0]), "")
    if conflict:
        return Located(conflict=f"{question.name}: {conflict}", pin=pin)
    return Located(entries[0].key.digest, pin=pin)


def _conflicts(question: _Question, entry: Entry) -> Iterator[str]:
    """Say in what an entry is not what its pin, the study or the images here want."""
    pin = question.pin
    assert pin is not None
    key = entry.key.digest[:SHORT]
    told = SPELLINGS if pin.content_digest is not None else frozenset()
    other = question.wanted.apart(entry.metadata["coordinates"], told)
    if question.key is None and other:
        yield f"the pinned entry {key} is of {'; '.join(other)}: pin another one, or change the study"
    if not _same_rows(question, entry):
        apart = _rows_apart(_samples_of(entry), question.samples())
        yield f"the images here are not those of the pinned entry {key}: {apart}"
    elif question.key is None and (other_rows := question.unlike(entry)):
        yield f"the pinned entry {key} has other rows or labels: {other_rows}: mend the list, or pin another entry"
    if pin.content_digest not in (None, entry.content_digest):
        yield (
            f"pinned with the values {pin.content_digest[:SHORT]}, the cache holds the key {key} with the values "
            f"{entry.content_digest[:SHORT]}: `penultimate cache remove {key}` and pull the pinned ones, or "
            "pin these with `penultimate cache pin`"
        )


def _other_key(question: _Question, key: CacheKey, pinned: list[Entry]) -> str:
    """Say in what the key that is computed here differs from the pinned one, as far as it can be told."""
    pin = question.pin
    assert pin is not None
    if pinned:
        apart = "; ".join(_apart(pinned[0].key.ingredients, key.ingredients))
    else:
        apart = "the pinned entry is not in the cache, pull it to see in what they differ"
    return (
        f"pinned as {pin.fingerprint[:SHORT]}, but images, weights and settings here give the key "
        f"{key.digest[:SHORT]} ({apart}): mend what differs, or keep "
        "what is here: `penultimate extract`, then `penultimate cache pin`"
    )


def _apart(pinned: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Say in which ingredients two keys differ, and how."""
    if pinned.get("samples") != here.get("samples"):
        yield _rows_apart(pinned.get("samples") or (), here["samples"])
    if pinned.get(ANNOTATIONS) != here[ANNOTATIONS]:
        yield "other labels, class names or groups"
    told = {"samples", ANNOTATIONS}
    yield from differences(
        {name: value for name, value in pinned.items() if name not in told},
        {name: value for name, value in here.items() if name not in told},
    )


def _rows_apart(pinned: Sequence[Sequence[str]], here: Sequence[Sequence[str]]) -> str:
    """Say how two lists of images differ: in ids, in bytes, or in order."""
    before, now = ({pair[0]: pair[1] for pair in pairs} for pairs in (pinned, here))
    changed = [id_ for id_ in now if id_ in before and now[id_] != before[id_]]
    counts = {
        "other bytes": changed,
        "not in the pinned entry": [id_ for id_ in now if id_ not in before],
        "only in the pinned entry": [id_ for id_ in before if id_ not in now],
    }
    parts = [f"{len(ids)} images {what}, such as {ids[0]!r}" for what, ids in counts.items() if ids]
    return ", ".join(parts) or "the images stand in another order"


def _same_rows(question: _Question, entry: Entry) -> bool:
    """Whether an entry was made from the very images that are here; true where none are."""
    return question.images is None or _samples_of(entry) == question.samples()


def _samples_of(entry: Entry) -> list[list[str]]:
    """Return ids and image hashes that an entry was made from; features of one's own have none."""
    return [list(pair) for pair in entry.key.ingredients.get("samples", ())]
