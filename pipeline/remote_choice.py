"""Which entries of a remote are meant: by key, by coordinates, or by what a study needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache import Store
from pipeline.errors import StudyError

if TYPE_CHECKING:
    from cache.remote import Remote
    from cache.share import Manifest


def chosen_remote(
    store: Store, remote: Remote, coordinates: Mapping[str, str], keys: Sequence[str], study: Path | None
) -> list[str]:
    """Return the keys of the remote entries meant; every one where nothing was said."""
    from cache.share import list_remote

    command = f"`penultimate cache list --remote {shlex.quote(remote.url)}`"
    remote.require_place()
    there = remote.keys() if keys else []
    picked = [only_one(beginning, there, command) for beginning in keys]
    if coordinates or study is not None or not keys:
        manifests = list_remote(remote)
        if coordinates or study is None:
            wanted = coordinates.items()
            picked += [m.key for m in manifests if all(str(m.coordinates.get(n)) == v for n, v in wanted)]
        if study is not None:
            picked += _of_study(store, remote, manifests, study)
    if not picked:
        raise StudyError(f"{remote.url}: no such entries; {command} shows what is there")
    return list(dict.fromkeys(picked))


def _of_study(store: Store, remote: Remote, manifests: Sequence[Manifest], path: Path) -> list[str]:
    """Return the keys of the remote entries that a study needs: the pinned ones, the others by coordinates.

    Raises
    ------
    StudyError
        What is pinned is not there, or has other content there.
    """
    from pipeline.config import load_study
    from pipeline.pins import pins_of
    from pipeline.wanted import wanted_of_study

    study = load_study(path)
    pins, here = pins_of(study), tuple(store.keys())
    picked: list[str] = []
    mistakes = []
    for spot, wanted in wanted_of_study(study).items():
        if spot not in pins:
            picked += [m.key for m in manifests if wanted.items() <= m.coordinates.items()]
            continue
        pin = pins[spot]
        there = [m for m in manifests if m.key.startswith(pin.fingerprint)]
        sound = [m.key for m in there if pin.content_digest in (None, m.content_digest)]
        picked += sound
        if not sound and not any(key.startswith(pin.fingerprint) for key in here):
            what = "there with other values" if there else "not there"
            mistakes.append(
                f"{remote.url}: {' / '.join(spot)} is pinned as {pin.fingerprint[:12]}, which is {what}; "
                "ask for it to be pushed, or pin what is there"
            )
    if mistakes:
        raise StudyError(mistakes)
    return picked


def only_one(beginning: str, keys: Iterable[str], command: str) -> str:
    """Return the one key that begins so; ``command`` shows which there are."""
    if not beginning:
        raise StudyError(f"an empty key names no entry; {command} shows the keys")
    found = [key for key in keys if key.startswith(beginning)]
    if len(found) != 1:
        raise StudyError(f"{len(found)} entries begin with {beginning!r}; {command} shows them")
    return found[0]
