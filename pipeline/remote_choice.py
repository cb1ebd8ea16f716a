"""Which entries of a remote are meant: by key, by coordinates, or by what a study needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache import Entry, Store
from pipeline.coordinates import met
from pipeline.errors import StudyError
from pipeline.needed import Picked, few, needs_of
from pipeline.pins import Spot, pins_of

if TYPE_CHECKING:
    from cache.remote import Remote
    from cache.share import Manifest
    from pipeline.wanted import Wanted


def chosen_remote(
    store: Store, remote: Remote, coordinates: Mapping[str, str], keys: Sequence[str], study: Path | None
) -> Picked:
    """Return the keys of the remote entries meant; every one where nothing was said."""
    from cache.share import list_remote

    command = f"`penultimate cache list --remote {shlex.quote(remote.url)}`"
    remote.require_place()
    there = remote.keys() if keys else []
    picked = [only_one(beginning, there, command) for beginning in keys]
    lacking: list[str] = []
    if coordinates or study is not None or not keys:
        manifests = list_remote(remote)
        if coordinates or study is None:
            picked += [m.key for m in manifests if met(m.coordinates, coordinates)]
        if study is not None:
            found, lacking = _of_study(store, remote, manifests, study)
            picked += found
    if not picked:
        raise StudyError(f"{remote.url}: no such entries; {command} shows what is there")
    return Picked(list(dict.fromkeys(picked)), lacking)


def _of_study(
    store: Store, remote: Remote, manifests: Sequence[Manifest], path: Path
) -> tuple[list[str], list[str]]:
    """Return the keys of the remote entries that a study needs, and what is neither there nor here.

    Pinned ones are found by their keys, the others by coordinates.

    Raises
    ------
    StudyError
        What is pinned is not there, or has other content there.
    """
    from pipeline.config import load_study
    from pipeline.wanted import wanted_of_study

    study = load_study(path)
    pins = pins_of(study)
    picked: dict[Spot, list[str]] = {}
    mistakes = []
    asked = wanted_of_study(study)
    for spot, wanted in asked.items():
        if spot not in pins:
            picked[spot] = [m.key for m in manifests if wanted.met_by(m.coordinates)]
            continue
        pin = pins[spot]
        pinned = f"{' / '.join(spot)} is pinned as {pin.fingerprint[:12]}"
        here = {entry.content_digest: entry.key.digest for entry in _beginning(store, pin.fingerprint)}
        there = [m for m in manifests if m.key.startswith(pin.fingerprint)]
        sound = [m.key for m in there if pin.content_digest in (None, m.content_digest)]
        if pin.content_digest is not None and here and pin.content_digest not in here:
            key = next(iter(here.values()))[:12]
            mistakes.append(
                f"{store.root}: {pinned} with the values {pin.content_digest[:12]}, here it has others: "
                f"`penultimate cache remove {key}`, then pull again, or pin these with `penultimate cache pin`"
            )
        elif not sound and not here:
            what = "there with other values" if there else "not there"
            mistakes.append(
                f"{remote.url}: {pinned}, which is {what}; ask for it to be pushed, or pin what is there"
            )
        picked[spot] = sound
    if mistakes:
        raise StudyError(mistakes)
    keys = [key for found in picked.values() for key in found]
    if not keys and not pins:
        raise StudyError(_none_of(study.name, asked.values(), manifests, remote.url))
    needs = needs_of(study, notify=store.notify)
    nowhere = [entry for entry in needs.absent if not picked.get(entry.spot)]
    where = f"neither here nor in {remote.url}"
    return keys, needs.absences(nowhere, where=where, fetch="ask for it to be pushed")


def _beginning(store: Store, fingerprint: str) -> list[Entry]:
    """Return the sound entries here whose key begins so."""
    found = [store.sound(key) for key in list(store.keys()) if key.startswith(fingerprint)]
    return [entry for entry in found if entry is not None]


def _none_of(name: str, wanted: Iterable[Wanted], manifests: Sequence[Manifest], url: str) -> Iterator[str]:
    """Say in which coordinates the entries of a remote differ from what a study asks for."""
    asked = [one.facts for one in wanted]
    yield f"{url}: none of its {len(manifests)} entries is one that {name} asks for"
    for coordinate in asked[0]:
        ours = {facts[coordinate] for facts in asked}
        theirs = {str(m.coordinates.get(coordinate)) for m in manifests}
        if theirs and not ours & theirs:
            few = ", ".join(sorted(theirs)[:3])
            yield f"{coordinate}: the study has {', '.join(sorted(ours)[:3])}, the entries there have {few}"


def only_one(beginning: str, keys: Iterable[str], command: str) -> str:
    """Return the one key that begins so; ``command`` shows which there are."""
    if not beginning:
        raise StudyError(f"an empty key names no entry; {command} shows the keys")
    found = [key for key in keys if key.startswith(beginning)]
    if len(found) != 1:
        which = f" ({few([key[:12] for key in found])})" if found else ""
        raise StudyError(f"{len(found)} entries begin with {beginning!r}{which}; {command} shows them")
    return found[0]
