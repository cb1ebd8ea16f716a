"""What nobody needs any more is deleted for good: old trash, rows that were given up, what killed processes left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.catalogue import EntryInfo, summarise
from cache.entry import open_entry
from cache.errors import CacheWriteError, LockTimeoutError
from cache.layout import DefectError
from cache.locks import KeyLock, Notify, silent
from cache.store import Store
from cache.trash import Thrown, thrown

DAY_SECONDS = 86_400.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ASIDE = re.compile(r"[0-9a-f]{64}(\.h5\.[0-9a-f]{8}|\.pulled\.h5)")
_TEMPORARY = re.compile(r"\..+\.[0-9]+\.[0-9a-f]+\.part")
_USED = re.compile(r"([0-9a-f]{64})\.(?:lock|holder|lease|rgb|json)")
_USED_PART = re.compile(r"\.([0-9a-f]{64})(?:\.[a-z0-9]+)*\.part")
"""What the cache itself names so; everything else is somebody's own."""


@dataclass(frozen=True)
class Emptied:
    """What was deleted for good, or would be."""

    folders: int = 0
    """How many files and folders, what lies in them not counted."""
    nbytes: int = 0
    """Sizes of the files."""

    def __add__(self, other: Emptied) -> Emptied:
        return Emptied(self.folders + other.folders, self.nbytes + other.nbytes)


def empty_trash(
    store: Store,
    *,
    grace: float = 7 * DAY_SECONDS,
    now: float | None = None,
    dry_run: bool = False,
    places: Sequence[str] = ("trash", "quarantine"),
) -> Emptied:
    """Delete what has been in the trash or in quarantine for longer than its grace.

    Parameters
    ----------
    store : Store
        Whose; it tells of what the system does not let it delete.
    grace : float
        Seconds.
    now : float, optional
        Seconds since the epoch; default: the clock's.
    dry_run : bool
        Only say what would go.
    places : sequence of {"trash", "quarantine"}
        Where.
    """
    done = Emptied()
    if "trash" in places:
        done += _empty_trash(store, grace, now, dry_run)
    if "quarantine" in places:
        old = [path for path in in_quarantine(store) if _age(path, now, "st_mtime", "st_ctime") > grace]
        done += _delete(old, store.notify, dry_run)
    return done


def trashed(store: Store, *, grace: float = 7 * DAY_SECONDS, now: float | None = None) -> list[EntryInfo]:
    """Return the entries that have been in the trash for longer than their grace, as far as they can be read."""
    found = []
    for one in _past_grace(store, grace, now):
        with contextlib.suppress(OSError, DefectError), open_entry(one.path) as opened:
            found.append(summarise(one.path, opened.index, opened.status))
    return found


def in_quarantine(store: Store, key: str = "") -> list[Path]:
    """Return the damaged files that were set aside, all of them or those of one key."""
    folder = store.root / "quarantine"
    if folder.is_symlink():  # what lies there is not ours to delete
        return []
    return [path for path in _in(folder) if _ASIDE.fullmatch(path.name) and path.name.startswith(key)]


def keys_in_trash(store: Store) -> list[str]:
    """Return the keys of the entries that can be taken back."""
    return sorted({one.key for one in thrown(store.root) if one.is_whole})


def drop_abandoned(
    store: Store, *, older_than: float = 30 * DAY_SECONDS, now: float | None = None, dry_run: bool = False
) -> Emptied:
    """Delete staged rows that nobody has added to for so many seconds and nobody is working on."""
    done = Emptied()
    for folder in _in(store.root / "staging"):
        touched = [_age(path, now, "st_mtime") for path in (folder, *_in(folder))]
        if _DIGEST.fullmatch(folder.name) and min(touched) > older_than:
            with _if_free(store.root / "locks", folder.name, dry_run) as free:
                done += _delete([folder] if free else [], store.notify, dry_run)
    return done


def drop_leftovers(
    store: Store, *, older_than: float = 30 * DAY_SECONDS, now: float | None = None, dry_run: bool = False
) -> Emptied:
    """Delete what killed processes left: temporary files, parts of downloads, locks that nobody holds."""
    entries = store.root / "entries"
    folders = [store.root, entries, *(path for path in _in(entries) if path.is_dir())]
    parts = [path for folder in folders for path in _in(folder) if _TEMPORARY.fullmatch(path.name)]
    ours = [store.root / name for name in ("incoming", "staging")]
    parts += [path for folder in ours for path in _in(folder) if path.suffix == ".part"]
    old = [path for path in parts if _age(path, now, "st_mtime") > older_than]
    done = _delete(old, store.notify, dry_run)
    return done + drop_unused(
        store.root / "locks", older_than=older_than, now=now, notify=store.notify, dry_run=dry_run
    )


def drop_unused(
    folder: Path,
    *,
    older_than: float = 30 * DAY_SECONDS,
    now: float | None = None,
    notify: Notify = silent,
    dry_run: bool = False,
) -> Emptied:
    """Delete files that are made again where they are missing and were not used for so many seconds.

    Parameters
    ----------
    folder : Path
        Of files named after a SHA-256; those of one digest are used under its `KeyLock` in this folder.
        What the cache does not name so stays.
    older_than, now, dry_run
        As `drop_leftovers`.
    notify : callable, optional
        Gets a line for what the system does not let be deleted.
    """
    groups: dict[str, list[Path]] = {}
    for path in _in(folder):
        if found := _USED.fullmatch(path.name) or _USED_PART.fullmatch(path.name):
            groups.setdefault(found[1], []).append(path)
    done = Emptied()
    for name, paths in groups.items():
        if min(_age(path, now, "st_mtime", "st_atime") for path in paths) > older_than:
            with _if_free(folder, name, dry_run) as free:
                done += _delete(paths if free else [], notify, dry_run)
    return done


@contextlib.contextmanager
def _if_free(locks: Path, name: str, dry_run: bool) -> Iterator[bool]:
    """Hold a lock if nobody else does, or if it cannot be held for lack of rights say so; a trial takes none."""
    if dry_run:
        yield True
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(KeyLock(locks, name).held(silent, 0.0))
            free = True
        except (LockTimeoutError, CacheWriteError):
            free = False
        yield free


def _past_grace(store: Store, grace: float, now: float | None) -> list[Thrown]:
    """Return what was removed longer ago than its grace."""
    moment = time.time() if now is None else now
    return [one for one in thrown(store.root) if moment - one.when > grace]


def _empty_trash(store: Store, grace: float, now: float | None, dry_run: bool) -> Emptied:
    """Delete the removals that are past their grace."""
    done = Emptied()
    for one in _past_grace(store, grace, now):
        files = [path for path in (one.path, one.side) if os.path.lexists(path)]
        gone = _delete(files, store.notify, dry_run)
        done += Emptied(min(1, gone.folders), gone.nbytes)
        if one.folder is not None and not dry_run:
            with contextlib.suppress(OSError):
                one.folder.rmdir()
    return done


def _in(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted; nothing where it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _age(path: Path, now: float | None, *stamps: str) -> float:
    """Return the seconds since the newest of some time stamps; none have passed for what has vanished."""
    try:
        status = path.lstat()
    except OSError:
        return float("-inf")
    moment = time.time() if now is None else now
    return moment - max(float(getattr(status, stamp)) for stamp in stamps)


def _delete(paths: Iterable[Path], notify: Notify, dry_run: bool) -> Emptied:
    """Delete files and folders and count what that freed; what cannot be deleted is told."""
    done = Emptied()
    for path in paths:
        before = _bytes_in(path)
        try:
            if not dry_run:
                _remove(path)
            done += Emptied(1, before)
        except FileNotFoundError:
            continue
        except OSError as error:
            done += Emptied(0, before - _bytes_in(path))
            notify(f"{path}: cannot be deleted ({error.strerror}), stays: its owner can")
    return done


def _remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _bytes_in(path: Path) -> int:
    """Return the size of a file, or of all files below a folder."""
    total = 0
    inside = [path, *(Path(top) / name for top, _, names in os.walk(path) for name in names)]
    for item in inside:
        with contextlib.suppress(OSError):
            status = item.lstat()
            total += 0 if item.is_dir() and not item.is_symlink() else status.st_size
    return total
