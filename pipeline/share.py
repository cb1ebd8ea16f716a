"""What `penultimate cache` does: which entries are meant, and one call of the cache for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import CacheError, CacheWriteError, Store
from pipeline.errors import StudyError
from pipeline.progress import SILENT, Reporter

if TYPE_CHECKING:
    from cache.remote import Remote
    from pipeline.jobs import ExtractJob

Rows = list[dict[str, Any]]
DEVIATION = 1e-3
"""Largest difference, relative to the largest feature, that another machine's arithmetic may make."""
DAY = 86_400.0


def listed(store: Store, remote: str | None, coordinates: Mapping[str, str]) -> Rows:
    """Return what a list shows of the entries with these coordinates, here or on a remote."""
    if remote is None:
        infos: Sequence[Any] = store.find(**coordinates)
    else:
        from cache.share import find_remote

        infos = find_remote(_remote(remote, store), **coordinates)
    names = list(dict.fromkeys(name for info in infos for name in info.coordinates))
    return [
        {
            "key": info.key,
            "rows": info.rows,
            "dimension": info.dimension,
            "bytes": info.nbytes,
            **{name: info.coordinates.get(name) for name in names},
        }
        for info in infos
    ]


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
        "excluded": [list(pair) for pair in entry.metadata["excluded"]],
        "provenance": entry.metadata["provenance"],
    }


def complete(store: Store, beginning: str, keys: Iterable[str] | None = None) -> str:
    """Find the one key that begins so."""
    found = [key for key in (store.keys() if keys is None else keys) if key.startswith(beginning)]
    if len(found) != 1:
        raise StudyError(
            f"{len(found)} entries begin with {beginning!r}; `penultimate cache list` shows them"
        )
    return found[0]


def chosen(
    store: Store, coordinates: Mapping[str, str], keys: Sequence[str], study: Path | None
) -> list[str]:
    """Return the keys of the local entries meant; every one where nothing was said."""
    if not coordinates and not keys and study is None:
        return list(store.keys())
    picked = [complete(store, beginning) for beginning in keys]
    if coordinates:
        picked += [info.key for info in store.find(**coordinates)]
    if study is not None:
        picked += _keys_of_study(study)
    return list(dict.fromkeys(picked))


def _keys_of_study(study: Path) -> list[str]:
    """Return the entries of a study that are cached here."""
    from pipeline.config import load_study
    from pipeline.jobs import ExtractJob, ProbeJob
    from pipeline.plan import plan

    keys = []
    for planned in plan(load_study(study), stages=("probe",)).jobs:
        if isinstance(planned.job, ProbeJob):
            keys += list(planned.job.entries.values())
        elif isinstance(planned.job, ExtractJob) and planned.state == "done" and planned.job.key:
            keys.append(planned.job.key)
    return list(dict.fromkeys(keys))


def verified(
    store: Store, keys: Sequence[str], *, sample: int | None, deep: bool, reporter: Reporter = SILENT
) -> Rows:
    """Check entries again; return a row for each, ``status`` "sound" or what is wrong."""
    from cache.verify import verify

    rows = []
    with reporter.bar("verifying", "entries") as progress:
        for done, key in enumerate(keys, start=1):
            try:
                result = verify(store, key, sample=sample, deep=deep)
                rows.append({"key": key, "status": "sound", "bytes": result.nbytes})
            except CacheWriteError:
                raise
            except CacheError as error:
                rows.append({"key": key, "status": str(error), "bytes": 0})
            progress(done, len(keys), key[:12])
    return rows


def recomputed(study: Path, rows: int, *, reporter: Reporter = SILENT) -> Rows:
    """Run some rows of every cached entry of a study again, to see whether a shared entry tells the truth.

    Parameters
    ----------
    study : Path
        Its images and weights must be on this machine.
    rows : int
        Of each entry, drawn anew each time.
    reporter : Reporter

    Returns
    -------
    list of dict
        ``status`` "sound", or the largest deviation relative to the largest feature.
    """
    from pipeline.config import load_study
    from pipeline.jobs import ExtractJob
    from pipeline.plan import plan

    planned = plan(load_study(study)).of("extract")
    jobs = [p.job for p in planned if p.state == "done" and isinstance(p.job, ExtractJob)]
    with reporter.bar("recomputing", "entries") as progress:
        found = []
        for done, job in enumerate(jobs, start=1):
            found.append(_recompute(job, rows))
            progress(done, len(jobs), job.name)
    return found


def _recompute(job: ExtractJob, rows: int) -> dict[str, Any]:
    """Compare a few rows of one entry with a forward pass made now."""
    from pipeline.resolve import open_store
    from stages.extract import extract_features

    assert job.key is not None
    entry = open_store().read(job.key)
    place = {id_: i for i, id_ in enumerate(job.split.ids)}
    drawn = np.random.default_rng().choice(len(entry.ids), size=min(rows, len(entry.ids)), replace=False)
    some = job.split.take(np.array([place[entry.ids[i]] for i in sorted(drawn)], dtype=np.intp))
    batches = extract_features(job.backbone, some, precision=job.precision, device=job.device)
    again = np.concatenate([batch.features for batch in batches])
    there = np.asarray(entry.features[sorted(drawn)], dtype=np.float32)
    deviation = float(np.abs(again - there).max() / max(float(np.abs(again).max()), 1e-30))
    status = "sound" if deviation <= DEVIATION else f"{job.name}: features deviate by {deviation:.3g}"
    return {
        "key": job.key,
        "status": status,
        "bytes": 0,
        "rows_recomputed": len(drawn),
        "deviation": deviation,
    }


def transfer(
    direction: str,
    store: Store,
    url: str,
    coordinates: Mapping[str, str],
    keys: Sequence[str],
    study: Path | None,
    *,
    dry_run: bool = False,
    reporter: Reporter = SILENT,
) -> Rows:
    """Push or pull the entries meant; return what became of each."""
    from cache import share

    remote = _remote(url, store)
    with reporter.bar(direction, "bytes") as progress:

        def show(key: str, done: int, total: int) -> None:
            progress(done, total, key[:12])

        if direction == "push":
            picked = chosen(store, coordinates, keys, study)
            if not picked:
                raise StudyError("no such entries here; `penultimate cache list` shows what there is")
            results = share.push(store, remote, picked, dry_run=dry_run, progress=show)
        else:
            picked = _chosen_remote(store, remote, coordinates, keys, study)
            results = share.pull(store, remote, picked, dry_run=dry_run, progress=show)
    return [
        {
            "key": result.key,
            "status": result.status,
            "bytes": result.nbytes,
            "deviation": result.deviation if math.isfinite(result.deviation) else None,
        }
        for result in results
    ]


def _chosen_remote(
    store: Store, remote: Remote, coordinates: Mapping[str, str], keys: Sequence[str], study: Path | None
) -> list[str]:
    """Return the keys of the remote entries meant; every one where nothing was said."""
    from cache.share import list_remote

    manifests = list_remote(remote)
    there = [manifest.key for manifest in manifests]
    everything = not coordinates and not keys and study is None
    picked = there if everything else [complete(store, beginning, there) for beginning in keys]
    if coordinates:
        wanted = coordinates.items()
        picked += [m.key for m in manifests if all(str(m.coordinates.get(n)) == v for n, v in wanted)]
    if study is not None:
        needed = _coordinates_of_study(study)
        picked += [m.key for m in manifests if any(n.items() <= m.coordinates.items() for n in needed)]
    if not picked:
        raise StudyError(
            f"{remote.url}: no such entries; `penultimate cache list --remote` shows what is there"
        )
    return list(dict.fromkeys(picked))


def _coordinates_of_study(path: Path) -> list[dict[str, str]]:
    """Return the coordinates of all features that a study needs, whatever is on this machine."""
    from pipeline.config import load_study
    from pipeline.plan_probes import wanted_coordinates
    from pipeline.resolve import resolve
    from stages.records import SPLITS

    study = load_study(path)
    backbones = resolve(study, need_images=False).backbones
    return [
        wanted_coordinates(study, backbone, table.name, split)
        for backbone in backbones
        for table in study.dataset
        for split in SPLITS
    ]


def imported(
    store: Store,
    file: Path,
    labels: Path | None,
    coordinates: Mapping[str, str],
    hdf5_dataset: str,
    classes: str | None,
) -> dict[str, Any]:
    """Take in an exported entry, or somebody's own features with their labels."""
    if labels is None and file.suffix in (".npy", ".npz", ".csv"):
        raise StudyError(f"{file}: features need their labels: cache import {file} labels.csv backbone=...")
    if labels is None:
        from cache.admit import import_entry

        admission = import_entry(store, file)
        return {
            "key": admission.entry.key.digest,
            "status": admission.status,
            "rows": len(admission.entry.ids),
            "deviation": admission.deviation if math.isfinite(admission.deviation) else None,
        }
    from cache.foreign import import_features, import_hdf5, read_labels

    lacking = [name for name in ("backbone", "dataset", "split") if name not in coordinates]
    if lacking:
        raise StudyError(f"say {' '.join(f'{name}=...' for name in lacking)}: entries are found by these")
    annotations = read_labels(labels, class_names=classes.split("|") if classes else None)
    if file.suffix == ".npy":
        entry = import_features(store, file, annotations, dict(coordinates))
    else:
        entry = import_hdf5(store, file, annotations, dict(coordinates), dataset=hdf5_dataset)
    return {"key": entry.key.digest, "status": "added", "rows": len(entry.ids), "deviation": 0.0}


def collected(
    store: Store,
    *,
    older_than: float | None,
    largest_total: float | None,
    keep: Sequence[Path],
    grace: float,
    dry_run: bool,
) -> dict[str, Any]:
    """Move entries to the trash by age (days), size (GB) and studies to keep; empty what is past its grace."""
    from cache.maintain import collect, empty_trash, to_collect

    kept = {key for study in keep for key in _keys_of_study(study)}
    picked = to_collect(
        store.list(),
        older_than=None if older_than is None else older_than * DAY,
        largest_total=None if largest_total is None else int(largest_total * 1e9),
        keep=kept,
    )
    moved = picked if dry_run else collect(store, picked)
    deleted = 0 if dry_run else empty_trash(store, grace=grace * DAY).nbytes
    rows = [{"key": info.key, "bytes": info.nbytes, **info.coordinates} for info in moved]
    return {"moved": rows, "deleted_bytes": deleted, "dry_run": dry_run}


def _remote(url: str, store: Store) -> Remote:
    """Open a remote; it tells what it tries again where the store tells its own."""
    from cache.remote import Remote

    return Remote(url, notify=store.notify)
