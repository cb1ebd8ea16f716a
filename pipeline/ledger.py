"""The ledger: one file a job and attempt below ``OUTPUT/results``, written once and never changed.

A failed attempt is a record too (`pipeline.record`). Of a job's finished attempts the newest that was made from what
the study says now counts: who tries another grid and comes back finds the results of before. A file that cannot be
read counts as not there and is told.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache import canonical_json, sha256_of
from cache.atomic import make_folder, write_file
from cache.locks import KeyLock, silent
from pipeline.record import (
    SCHEMA,
    Record,
    Status,
    UnreadableRecordError,
    attempt_of,
    file_stem,
    read_once,
    read_record,
    record_text,
)

__all__ = ["History", "Ledger", "Record", "differences", "file_stem", "truth"]


@dataclass(frozen=True)
class History:
    """What counts of the attempts at each job."""

    finished: Mapping[str, Record]
    """The newest attempt that is complete or diverged, whatever it was made from."""
    failed: Mapping[str, Record]
    """The newest attempt of all, where it failed."""
    every: tuple[Record, ...] = ()
    """All attempts that can be read, oldest first."""
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    """Files that should be the newest attempt at a job and cannot be read, and what is wrong, one line each."""
    made_from: Mapping[tuple[str, str], Record] = field(default_factory=dict)
    """By job and digest of the spec the newest attempt that is complete or diverged."""

    def result_of(self, job: str, spec_digest: str | None) -> Record | None:
        """Return the finished attempt that counts: made from this spec, or the newest where it is not known."""
        return self.finished.get(job) if spec_digest is None else self.made_from.get((job, spec_digest))

    def lost(self, job: str) -> bool:
        """Return whether the newest attempt at a job is a file that cannot be read."""
        stem = file_stem(job)
        return any(_stem_of(path) == stem for path in self.unreadable)


class Ledger:
    """Results of one study.

    Parameters
    ----------
    folder : path
        The study's output folder; records lie in ``results/<regime>/`` below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"

    def records(self) -> list[Record]:
        """Read every record that can be read, oldest attempt of a job first.

        Raises
        ------
        StudyError
            A record of another schema; the file is named.
        """
        return list(self.history().every)

    def history(self) -> History:
        """Return what counts of every job's attempts.

        Raises
        ------
        StudyError
            A record of another schema; the file is named.
        """
        found, unreadable = _read_all(sorted(self.results.glob("*/*.json"), key=str))
        every = tuple(sorted(found, key=lambda record: (record.job, record.attempt)))
        last = {record.job: record for record in every}
        finished = {record.job: record for record in every if record.status != "failed"}
        failed = {job: record for job, record in last.items() if record.status == "failed"}
        newest = {_place(record.path): record.attempt for record in every} if unreadable else {}
        pending = {p: why for p, why in unreadable.items() if attempt_of(p) >= newest.get(_place(p), 0)}
        made_from = {
            (record.job, record.spec_digest): record for record in every if record.status != "failed"
        }
        return History(finished, failed, every, pending, made_from)

    def has_finished(self, regime: str, job: str, spec_digest: str) -> bool:
        """Return whether a finished attempt at a job was made from this spec."""
        paths = (self.results / regime).glob(f"{file_stem(job)}.a*.json")
        return any(r.spec_digest == spec_digest for r in _read_all(paths)[0] if r.status != "failed")

    def write(
        self,
        regime: str,
        job: str,
        *,
        status: Status,
        spec: Mapping[str, Any],
        columns: Mapping[str, Any],
        provenance: Mapping[str, Any],
        result: Mapping[str, Any] | None = None,
        reason: str = "",
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        attachments: Mapping[str, bytes] | None = None,
    ) -> Record:
        """Write a new attempt: arrays and attachments first, the record last.

        One process at a time: an attempt whose writer was killed leaves its number to the next one.

        Parameters
        ----------
        regime, job : str
            Folder and name.
        status, spec, columns, provenance, result, reason
            As in `Record`.
        arrays : mapping of str to ndarray
            Written as ``.npz`` beside the record.
        attachments : mapping of str to bytes
            Suffix (".safetensors") to content of further files beside the record.

        Returns
        -------
        Record
        """
        folder = self.results / regime
        make_folder(folder)
        files = dict(attachments or {})
        if arrays:
            files[".npz"] = _npz(arrays)
        body = {
            "schema": SCHEMA,
            "job": job,
            "status": status,
            "reason": reason,
            "spec": spec,
            "columns": columns,
            "result": dict(result or {}),
            "files": {suffix: hashlib.sha256(content).hexdigest() for suffix, content in files.items()},
            "provenance": provenance,
        }
        text = record_text(body)
        with KeyLock(self.folder / "locks", sha256_of(regime)).held(silent):
            stem = file_stem(job)
            attempt = 1 + max((attempt_of(p) for p in folder.glob(f"{stem}.a*.json")), default=0)
            path = folder / f"{stem}.a{attempt}.json"
            for suffix, content in files.items():
                write_file(path.with_suffix(suffix), content)
            write_file(path, text.encode())
        return read_record(path)


def _read_all(paths: Iterable[Path]) -> tuple[list[Record], dict[Path, str]]:
    """Read records; those that cannot be read apart, with what is wrong."""
    found, unreadable = [], {}
    for path in paths:
        try:
            found.append(read_once(path))
        except UnreadableRecordError as error:
            unreadable[path] = str(error)
    return found, unreadable


def _place(path: Path) -> tuple[Path, str]:
    """What all attempts at one job share: folder and beginning of the name."""
    return path.parent, _stem_of(path)


def _stem_of(path: Path) -> str:
    """A record's file name without the attempt."""
    return path.name.removesuffix(".json").removesuffix(f".a{attempt_of(path)}")


def truth(labels: Any, ids: tuple[str, ...]) -> dict[str, Any]:
    """Return labels and ids as arrays for the statistics of later."""
    return {"labels": np.asarray(labels), "ids": np.array(ids, dtype=np.str_)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Say in which leaves two specs differ, as "probe.folds: 5 -> 10"."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif canonical_json(before) != canonical_json(after):
            yield f"{prefix}{key}: {_short(before)} -> {_short(after)}"


def _short(value: object) -> str:
    """Show a leaf in a few characters."""
    text = json.dumps(value)
    if isinstance(value, float) and float(f"{value:g}") == value:
        text = f"{value:g}"
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"


def _npz(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Pack arrays without pickles."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise TypeError("arrays of objects need pickles and are not written")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()
