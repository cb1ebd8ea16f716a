"""`penultimate cache pin`: which entries are meant, and writing that down."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import Entry
from pipeline.cache_folder import open_store
from pipeline.choices import described, pin_of
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.lock import lock_file, write_lock
from pipeline.needed import needs_in
from pipeline.pins import Spot, with_pins
from pipeline.share import complete
from pipeline.survey import survey
from pipeline.tables import PinTable
from pipeline.wanted import wanted_of_study
from stages.records import SPLITS


def pin(study: Study, keys: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Write down in STUDY.lock which cached entries a study uses, to the byte.

    Parameters
    ----------
    study : Study
        Read from a file.
    keys : sequence of str
        Keys, or beginnings of keys, of entries to pin; the other pins stay. Without any, every entry
        that the study uses is pinned, as it is in the cache now; all of them have to be here.

    Returns
    -------
    list of dict
        ``backbone``, ``dataset``, ``split``, ``key``, ``content_digest``, ``status`` ("new", "changed",
        "unchanged") of each pin that the lock holds.

    Raises
    ------
    AmbiguousEntriesError
        Several entries match and no key says which is meant.
    StudyError
        An entry is none of the study's, one that it needs is not here, or the images here say otherwise; nothing
        was written.
    """
    pins = _of_keys(study, keys) if keys else _of_everything(study)
    if not pins:
        raise StudyError(f"{study.name}: none of its features are cached here; extract or pull them first")
    _refuse_conflicts(with_pins(study, pins.values()), pins.keys())
    return remember(study, list(pins.values()))


def remember(study: Study, pins: Sequence[PinTable]) -> list[dict[str, Any]]:
    """Write pins into the lock beside the study file, where others stay."""
    before = {pin.place: pin for pin in study.lock if pin.place in _spots(study)}
    after = before | {pin.place: pin for pin in pins}
    write_lock(lock_of(study), after.values())
    return [_row(before.get(spot), after[spot]) for spot in sorted(after)]


def _row(before: PinTable | None, pin: PinTable) -> dict[str, Any]:
    """Say what became of one pin."""
    return {
        "backbone": pin.backbone,
        "dataset": pin.dataset,
        "split": pin.split,
        "key": pin.fingerprint,
        "content_digest": pin.content_digest,
        "status": "new" if before is None else "unchanged" if before == pin else "changed",
    }


def lock_of(study: Study) -> Path:
    """Return where the lock of a study lies.

    Raises
    ------
    StudyError
        The study was not read from a file.
    """
    if study.file is None:
        raise StudyError(f"{study.name}: not read from a file, so there is no place beside it for a lock")
    return lock_file(study.file)


def _spots(study: Study) -> set[Spot]:
    """Return everything that can be pinned in a study."""
    return {(b.label, d.name, split) for b in study.backbone for d in study.dataset for split in SPLITS}


def _of_keys(study: Study, keys: Sequence[str]) -> dict[Spot, PinTable]:
    """Find out which spots entries are for, by their coordinates."""
    store, wanted = open_store(), wanted_of_study(study)
    pins: dict[Spot, PinTable] = {}
    for beginning in keys:
        entry = store.read(complete(store, beginning))
        spots = [spot for spot, asked in wanted.items() if asked.met_by(_coordinates(entry))]
        if not spots:
            facts = ", ".join(f"{name}={value}" for name, value in _coordinates(entry).items())
            raise StudyError(f"{entry.key.digest[:12]} ({facts}) is no entry that {study.name} asks for")
        for spot in spots:
            if spot in pins:
                raise StudyError(f"{described(spot)}: two of the keys given are for it; give one")
            pins[spot] = pin_of(spot, entry.key.digest, entry.content_digest)
    return pins


def _coordinates(entry: Entry) -> Mapping[str, Any]:
    """Return what people find an entry by."""
    coordinates: Mapping[str, Any] = entry.metadata["coordinates"]
    return coordinates


def _of_everything(study: Study) -> dict[Spot, PinTable]:
    """Pin what the study uses now; the former lock only decides where nothing else does."""
    loose = [pin.model_copy(update={"content_digest": None}) for pin in study.lock]
    found = survey(study.model_copy(update={"lock": tuple(loose)}))
    broken = set(found.conflicts)
    useless = broken | {spot for spot, entry in found.located.items() if entry.lacking}
    if useless:
        kept = tuple(pin for pin in loose if pin.place not in useless)
        found = survey(study.model_copy(update={"lock": kept}))
    needs = needs_in(study, found)
    needs.refuse_doubt()
    pins = {
        entry.spot: pin_of(
            entry.spot, entry.found.key, found.shelf.store.read(entry.found.key).content_digest
        )
        for entry in needs.entries
        if entry.found.key is not None
    }
    staying = {pin.place for pin in study.lock} - broken
    absent = [entry for entry in needs.absent if entry.spot not in staying]
    if absent and (pins or broken):
        raise StudyError(f"{line}, then pin; the lock stays as it was" for line in needs.absences(absent))
    return pins


def _refuse_conflicts(study: Study, spots: Collection[Spot]) -> None:
    """Refuse pins that the images here, or the study file's own pins, speak against."""
    found = survey(study).conflicts
    conflicts = list(dict.fromkeys(found[spot] for spot in spots if spot in found))
    if conflicts:
        raise StudyError(conflicts)
