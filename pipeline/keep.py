"""Keeping the cache: are its entries sound, do they tell the truth, and which of them may go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import CacheError, CacheWriteError, DamagedEntryError, EntryInfo, Store
from pipeline.coordinates import row_of
from pipeline.needed import needs_of
from pipeline.progress import SILENT, Reporter
from pipeline.share import Rows

if TYPE_CHECKING:
    from pipeline.jobs import ExtractJob

DEVIATION = 1e-3
"""Largest difference, relative to the largest feature, that another machine's arithmetic may make."""
DAY = 86_400.0


def verified(
    store: Store, keys: Sequence[str], *, sample: int | None, deep: bool, reporter: Reporter = SILENT
) -> Rows:
    """Check entries again; return a row for each, ``status`` "sound" or what is wrong.

    ``verdict`` tells an entry that is "damaged" from one of which nothing is known, "unreadable".
    """
    from cache.verify import verify

    rows = []
    with reporter.bar("verifying", "entries") as progress:
        for done, key in enumerate(keys, start=1):
            try:
                result = verify(store, key, sample=sample, deep=deep)
                rows.append({"key": key, "status": "sound", "verdict": "sound", "bytes": result.nbytes})
            except CacheWriteError:
                raise
            except CacheError as error:
                verdict = "damaged" if isinstance(error, DamagedEntryError) else "unreadable"
                rows.append({"key": key, "status": str(error), "verdict": verdict, "bytes": 0})
            progress(done, len(keys), key[:12])
    return rows


def set_aside_before(store: Store) -> Iterator[str]:
    """Say that entries were found damaged before now: nothing that is checked now tells of them."""
    from cache.sweep import in_quarantine

    if found := in_quarantine(store):
        yield (
            f"note: {len(found)} damaged files were set aside in {store.root / 'quarantine'} before now: extract or "
            "pull what is missed; `penultimate cache gc` deletes them after its grace"
        )


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
    from pipeline.cache_folder import open_store
    from stages.extract import extract_features

    assert job.key is not None
    entry = open_store().read(job.key)
    place = {id_: i for i, id_ in enumerate(job.split.ids)}
    drawn = np.random.default_rng().choice(len(entry.ids), size=min(rows, len(entry.ids)), replace=False)
    some = job.split.take(np.array([place[entry.ids[i]] for i in sorted(drawn)], dtype=np.intp))
    batches = extract_features(job.backbone, some, precision=job.precision, device=job.device)
    again = np.concatenate([batch.features for batch in batches])
    there = np.asarray(entry.features[sorted(drawn)], dtype=np.float32)
    if again.shape == there.shape:
        deviation = float(np.abs(again - there).max() / max(float(np.abs(again).max()), 1e-30))
        found = f"features deviate by {deviation:.3g}"
    else:
        deviation = float("inf")
        found = f"{there.shape[1]} features a row, the network gives {again.shape[1]}"
    sound = deviation <= DEVIATION
    status = "sound" if sound else f"{job.name}: {found}"
    return {
        "key": job.key,
        "status": status,
        "verdict": "sound" if sound else "damaged",
        "bytes": 0,
        "rows_recomputed": len(drawn),
        "deviation": deviation,
    }


def collected(
    store: Store,
    *,
    older_than: float | None,
    largest_total: float | None,
    keep: Sequence[Path],
    grace: float,
    dry_run: bool,
) -> dict[str, Any]:
    """Move entries to the trash by age (days), size (GB) and studies to keep; delete what is past its grace.

    Where none of the three is given no entry is moved.

    Returns
    -------
    dict
        ``moved``, a row for each entry; ``deleted_entries``, those of the trash that are gone for good;
        ``deleted``, the bytes freed by what they were; ``deleted_bytes``, their sum; ``dry_run``.
    """
    from cache.maintain import collect, to_collect
    from cache.sweep import trashed

    kept = {key for study in keep for key in _needed(study, store)}
    asked = older_than is not None or largest_total is not None or bool(keep)
    picked = to_collect(
        store.list() if asked else (),
        older_than=None if older_than is None else older_than * DAY,
        largest_total=None if largest_total is None else int(largest_total * 1e9),
        keep=kept,
    )
    moved = picked if dry_run else collect(store, picked)
    gone = trashed(store, grace=grace * DAY)
    deleted = _swept(store, grace=grace * DAY, dry_run=dry_run)
    return {
        "moved": _rows_of(moved),
        "deleted_entries": _rows_of(gone),
        "deleted": deleted,
        "deleted_bytes": sum(deleted.values()),
        "dry_run": dry_run,
    }


def _rows_of(infos: Sequence[EntryInfo]) -> Rows:
    """Return a row for each entry."""
    return [
        row_of({"key": info.key, "bytes": info.nbytes}, info.coordinates, list(info.coordinates))
        for info in infos
    ]


def _needed(study: Path, store: Store) -> Iterator[str]:
    """Yield the entries that a study needs, and those whose features only wait for its labels.

    Raises
    ------
    StudyError
        There is none: nobody means to keep nothing.
    """
    needs = needs_of(study, notify=store.notify)
    needs.refuse_doubt()
    found = [*needs.keys, *(key for entry in needs.absent for key in entry.twins)]
    if not found:
        needs.require_some()
    for line in needs.absences():
        store.notify(f"note: {line}")
    yield from found


def _swept(store: Store, *, grace: float, dry_run: bool) -> dict[str, int]:
    """Delete what nobody needs any more; return the bytes that each kind of it freed, or would."""
    from cache.sweep import drop_abandoned, drop_leftovers, drop_unused, empty_trash

    pixels = store.root.parent / "pixels"
    emptied = {
        "trash": empty_trash(store, grace=grace, dry_run=dry_run, places=["trash"]),
        "quarantine": empty_trash(store, grace=grace, dry_run=dry_run, places=["quarantine"]),
        "abandoned rows": drop_abandoned(store, dry_run=dry_run),
        "leftovers": drop_leftovers(store, dry_run=dry_run),
        "unused pixels": drop_unused(pixels, notify=store.notify, dry_run=dry_run),
    }
    return {kind: found.nbytes for kind, found in emptied.items()}
