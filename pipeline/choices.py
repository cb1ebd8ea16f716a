"""Where several cached entries match and nothing tells which is meant: what they differ in, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import Entry, sha256_of
from pipeline.errors import StudyError
from pipeline.pins import Spot
from pipeline.tables import PinTable
from stages.datasets.manifest import label_texts

SHORT = 12
"""Hex digits of a key or a digest that people are shown."""
_LABELS = ("annotations", "annotations_sha256")
"""Ingredients of a key that labels, classes and groups decide."""
_NAMES = {
    "annotations": "labels",
    "annotations_sha256": "labels",
    "features_sha256": "features",
    "weights_sha256": "weights",
}
"""Ingredients of a key, in words."""


@dataclass(frozen=True)
class Candidate:
    """One of several entries that match."""

    key: str
    content_digest: str
    about: str
    """In what it differs from the others, and who made it when."""
    kin: frozenset[str] = frozenset()
    """What it shares with the entries of other splits that were made in the same way."""


@dataclass(frozen=True)
class Choice:
    """A question: which of these entries is meant."""

    spot: Spot
    candidates: tuple[Candidate, ...]

    @property
    def title(self) -> str:
        """What the question is about."""
        return f"{described(self.spot)}: {len(self.candidates)} cached entries match"

    def answer(self, candidate: Candidate) -> PinTable:
        """Return the pin that answers the question."""
        return pin_of(self.spot, candidate.key, candidate.content_digest)


class AmbiguousEntriesError(StudyError):
    """Several cached entries match, and nothing on this machine tells which is meant.

    Attributes
    ----------
    choices : tuple of Choice
        One for each split of a data set through a backbone that is in doubt.
    conflicts : tuple of str
        What stands between the pins that there are and the cache, one line each.
    """

    def __init__(self, choices: Sequence[Choice], study: Path | None, conflicts: Sequence[str] = ()) -> None:
        lines = [_line(choice) for choice in choices]
        lines[-1:] = [f"{line}; {_hint(choices, study)}" for line in lines[-1:]]
        super().__init__([*conflicts, *lines])
        self.choices = tuple(choices)
        self.conflicts = tuple(conflicts)
        self._study = study

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Travel from a worker process whole."""
        return type(self), (self.choices, self._study, self.conflicts)


def choice_of(spot: Spot, entries: Sequence[Entry]) -> Choice:
    """Put the question which of several entries is meant."""
    return Choice(
        spot,
        tuple(
            Candidate(entry.key.digest, entry.content_digest, about, _kin(entry))
            for entry, about in zip(entries, told_apart(entries), strict=True)
        ),
    )


def pin_of(spot: Spot, key: str, content_digest: str | None) -> PinTable:
    """Return the pin of an entry."""
    backbone, dataset, split = spot
    return PinTable(
        backbone=backbone, dataset=dataset, split=split, fingerprint=key, content_digest=content_digest
    )


def described(spot: Spot) -> str:
    """Name a split of a data set through a backbone."""
    return f"{spot[1]}/{spot[2]} through {spot[0]}"


def told_apart(entries: Sequence[Entry]) -> Iterator[str]:
    """Say of each entry what is only its own: the ingredients in which they differ, then rows and origin."""
    facts = [_facts(entry) for entry in entries]
    for one, label in zip(facts, _labels_apart(entries), strict=True):
        if label:
            one |= {name: label for name in _LABELS if name in one}
    names = sorted({name for one in facts for name in one})
    differing = [name for name in names if len({sha256_of(one.get(name)) for one in facts}) > 1]
    for entry, one in zip(entries, facts, strict=True):
        parts = [f"{_NAMES.get(name, name)} {short(one.get(name))}" for name in differing]
        parts.append(f"{len(entry.raw_ids)} rows")
        yield printable(", ".join([*parts, *_origin(entry.metadata["provenance"])]))


def _facts(entry: Entry) -> dict[str, Any]:
    """Return the ingredients of a key, what the images are and how they are named apart from each other."""
    facts = dict(entry.key.ingredients)
    if "samples" in facts:
        pairs = facts.pop("samples")
        facts |= {
            "images": [sha256 for _, sha256 in pairs],
            "ids (paths as written)": [id_ for id_, _ in pairs],
        }
    if isinstance(facts.get("preprocessing"), Mapping):
        facts |= facts.pop("preprocessing")
    return facts


def _labels_apart(entries: Sequence[Entry]) -> list[str]:
    """Say of each entry how it labels the first image that they label differently; nothing where there is none."""
    texts = [
        dict(zip(entry.ids, label_texts(entry.labels, entry.metadata["class_names"]), strict=True))
        for entry in entries
    ]
    for id_ in texts[0]:
        labels = [text.get(id_) for text in texts]
        if None not in labels and len(set(labels)) > 1:
            return [f"{id_!r} is {label!r}" for label in labels]
    return [""] * len(entries)


def _kin(entry: Entry) -> frozenset[str]:
    """Return digests of what does not depend on the split, of the classes too."""
    of_split = {"samples", "features_sha256", *_LABELS}
    facts = {name: value for name, value in entry.key.ingredients.items() if name not in of_split}
    facts["class_names"] = list(entry.metadata["class_names"])
    return frozenset(sha256_of([name, value]) for name, value in facts.items())


def short(value: Any) -> str:
    """Show an ingredient: itself where it is short, else the beginning of its digest."""
    if isinstance(value, str) and len(value) == 64:
        return value[:SHORT]
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else sha256_of(value)[:SHORT]


def printable(text: str) -> str:
    """Take out what would steer a terminal: entries come from other people."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Say who made an entry, where and when, as far as its provenance tells."""
    features, written, user, host = (provenance.get(name) for name in ("features", "written", "user", "host"))
    relabelled = provenance.get("relabelled_from")
    if isinstance(relabelled, Mapping):
        yield f"relabelled from {str(relabelled.get('key'))[:SHORT]}"
    if features:
        yield f"from {str(features)[:40]}"
    if written:
        yield f"made {str(written)[:19].replace('T', ' ')}"
    if user and host:
        yield f"by {str(user)[:40]} on {str(host)[:40]}"


def _line(choice: Choice) -> str:
    """Put a question as an error."""
    listed = "; ".join(f"{c.key[:SHORT]} ({c.about})" for c in choice.candidates)
    return f"{choice.title}: {listed}"


def _hint(choices: Sequence[Choice], study: Path | None) -> str:
    """Name the one command that answers all questions, with entries that were made in the same way."""
    first = choices[0].candidates[0]
    keys = [max(choice.candidates, key=lambda c: len(c.kin & first.kin)).key[:SHORT] for choice in choices]
    command = f"penultimate cache pin {study or 'STUDY'} {' '.join(keys)}"
    return (
        f"nothing here tells which is meant: pin one{' of each' if len(keys) > 1 else ''}, as in `{command}`"
    )
