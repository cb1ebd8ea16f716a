"""What `penultimate cache` does: which entries are meant, and one call of the cache for each."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import Store
from pipeline.coordinates import met, row_of
from pipeline.errors import StudyError
from pipeline.needed import Needs, Picked, few, needs_of
from pipeline.progress import SILENT, Reporter
from pipeline.remote_choice import chosen_remote, only_one
from stages.names import did_you_mean

if TYPE_CHECKING:
    from cache.remote import Remote

Rows = list[dict[str, Any]]


def listed(store: Store, remote: str | None, coordinates: Mapping[str, str]) -> Rows:
    """Return what a list shows of the entries with these coordinates, here or on a remote."""
    if remote is None:
        every: Sequence[Any] = store.list()
    else:
        from cache.share import list_remote

        place = _remote(remote, store)
        place.require_place()
        every = list_remote(place)
    infos = [info for info in every if met(info.coordinates, coordinates)]
    if coordinates and not infos:
        _refuse_unknown(coordinates, every)
    names = list(dict.fromkeys(name for info in infos for name in info.coordinates))
    return [
        {
            **row_of(_figures(info), info.coordinates, names),
            **({"path": str(info.path)} if remote is None else {}),
        }
        for info in infos
    ]


def _figures(info: Any) -> dict[str, Any]:
    """Return what a list shows of an entry beside its coordinates."""
    return {"key": info.key, "rows": info.rows, "dimension": info.dimension, "bytes": info.nbytes}


def _refuse_unknown(coordinates: Mapping[str, str], infos: Sequence[Any]) -> None:
    """Refuse the name of a coordinate that no entry has: a slip of the pen would look like an empty cache."""
    known = {name for info in infos for name in info.coordinates}
    for name in coordinates:
        if known and name not in known:
            hint = did_you_mean(name, known)
            raise StudyError(
                f"no entry has a coordinate {name!r}{hint} (there are {', '.join(sorted(known))})"
            )


def _unknown_value(store: Store, coordinates: Mapping[str, str]) -> str:
    """Say which value of a coordinate no entry here has; nothing where each occurs."""
    infos = store.list() if coordinates else []
    for name, value in coordinates.items():
        values = sorted({str(info.coordinates[name]) for info in infos if name in info.coordinates})
        if values and value not in values:
            return f": none has {name}={value}{did_you_mean(value, values) or f', but {few(values)}'}"
    return ""


def nothing_listed(store: Store, remote: str | None, coordinates: Mapping[str, str]) -> str:
    """Say where nothing was found, and what may be wrong with what was asked, or with the place."""
    folder = store.root.parent
    if remote is not None:
        return f"no such entries in {remote}"
    if not folder.is_dir():
        return f"no such entries: there is no folder {folder} ($PENULTIMATE_CACHE, else ~/.cache/penultimate)"
    return f"no such entries in {folder}{_unknown_value(store, coordinates)}"


def described(store: Store, key: str) -> dict[str, Any]:
    """Return all that is known of one entry, as JSON values."""
    entry = store.read(key)
    recipe = {name: value for name, value in entry.key.ingredients.items() if name != "samples"}
    return {
        "key": entry.key.digest,
        "path": str(entry.path),
        "content_digest": entry.content_digest,
        "shape": list(entry.features.shape),
        "dtype": str(entry.features.dtype),
        "coordinates": dict(entry.metadata["coordinates"]),
        "recipe": recipe,
        "classes": len(entry.metadata["class_names"]),
        "class_names": list(entry.metadata["class_names"]),
        "multi_label": entry.metadata["multi_label"],
        "excluded": [list(pair) for pair in entry.metadata["excluded"]],
        "provenance": entry.metadata["provenance"],
    }


def described_there(store: Store, url: str, beginning: str) -> dict[str, Any]:
    """Return what a remote says of one entry, whose bytes nobody has checked yet, as JSON values."""
    from cache.share import read_manifest

    remote = _remote(url, store)
    remote.require_place()
    command = f"`penultimate cache list --remote {shlex.quote(remote.url)}`"
    manifest = read_manifest(remote, only_one(beginning, remote.keys(), command))
    return {
        "key": manifest.key,
        "remote": remote.url,
        "file": manifest.data_name,
        "bytes": manifest.nbytes,
        "content_digest": manifest.content_digest,
        "shape": [manifest.rows, manifest.dimension],
        "dtype": manifest.dtype,
        "coordinates": manifest.coordinates,
        "classes": manifest.classes,
        "multi_label": manifest.multi_label,
        "provenance": manifest.provenance,
    }


def complete(store: Store, beginning: str) -> str:
    """Find the one key here that begins so."""
    return only_one(beginning, store.keys(), "`penultimate cache list`")


@dataclass(frozen=True)
class Moved:
    """What a push or pull did."""

    rows: Rows
    lacking: list[str]
    """What the study needs and did not come along, a line each."""


def chosen(store: Store, coordinates: Mapping[str, str], keys: Sequence[str], study: Path | None) -> Picked:
    """Return the keys of the local entries meant; every one where nothing was said.

    Raises
    ------
    StudyError
        Something was said, and no entry is meant by it.
    """
    if not coordinates and not keys and study is None:
        return Picked(list(store.keys()))
    picked = [complete(store, beginning) for beginning in keys]
    if coordinates:
        picked += [info.key for info in store.list() if met(info.coordinates, coordinates)]
    lacking: list[str] = []
    remarks: list[str] = []
    if study is not None:
        needs = needs_of(study, notify=store.notify)
        needs.refuse_doubt()
        picked += needs.keys
        if not picked:
            needs.require_some()
        lacking, remarks = needs.absences(), _unpinned(needs)
    if not picked:
        why = _unknown_value(store, coordinates) or f" in {store.root.parent}"
        raise StudyError(f"no such entries here{why}; `penultimate cache list` shows what there is")
    return Picked(list(dict.fromkeys(picked)), lacking, remarks)


def _unpinned(needs: Needs) -> list[str]:
    """Say what others do not find by its names; a lock tells them the keys."""
    return [] if needs.study.lock else needs.other_names()


def transfer(
    direction: str,
    store: Store,
    url: str,
    coordinates: Mapping[str, str],
    keys: Sequence[str],
    study: Path | None,
    *,
    dry_run: bool = False,
    verify: bool = False,
    reporter: Reporter = SILENT,
) -> Moved:
    """Push or pull the entries meant; return what became of each. ``verify`` is for `push`."""
    from cache import share

    remote = _remote(url, store)
    with reporter.bar(direction, "bytes") as progress:

        def show(key: str, done: int, total: int) -> None:
            progress(done, total, key[:12])

        if direction == "push":
            picked = chosen(store, coordinates, keys, study)
            if not picked.keys:
                raise StudyError("there are no entries here to push; `penultimate extract STUDY` makes them")
            new = not remote.readable_only and not remote.is_there()
            results = share.push(store, remote, picked.keys, dry_run=dry_run, verify=verify, progress=show)
            made = f"{remote.url}: there was no such folder, it {'would be' if dry_run else 'was'} made"
            for line in [*picked.remarks, *([made] if new else [])]:
                store.notify(f"note: {line}")
        else:
            picked = chosen_remote(store, remote, coordinates, keys, study)
            results = share.pull(store, remote, picked.keys, dry_run=dry_run, progress=show)
    rows = [
        {
            "key": result.key,
            "status": result.status,
            "bytes": result.nbytes,
            "deviation": result.deviation if math.isfinite(result.deviation) else None,
        }
        for result in results
    ]
    return Moved(rows, picked.lacking)


def restored(store: Store, beginnings: Sequence[str]) -> Rows:
    """Take entries back from the trash, verified; each is named by its key or the beginning of it."""
    from cache.maintain import restore
    from cache.sweep import keys_in_trash

    command = "`ls " + shlex.quote(str(store.root / "trash")) + "`"
    keys = [only_one(beginning, keys_in_trash(store), command) for beginning in beginnings]
    return [{"key": key, "path": str(restore(store, key).path)} for key in keys]


def _remote(url: str, store: Store) -> Remote:
    """Open a remote; it tells what it tries again where the store tells its own."""
    from cache.remote import Remote

    remote = Remote(url, notify=store.notify)
    remote.refuse_store()
    return remote
