"""The ledger: one file a job and attempt below ``OUTPUT/results``, written once and never changed.

A record is JSON: the job's name and spec, how the attempt ended, the result, and provenance. Arrays
(per-example scores) lie beside it as ``.npz`` without pickles, fitted probes as ``.safetensors``. A failed
attempt is a record too. The newest complete attempt of a job counts.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cache import canonical_json, sha256_of
from cache.atomic import make_folder, write_file
from pipeline.errors import StudyError

SCHEMA = 1
"""Grows when the meaning of a record's fields changes."""

_AGAIN = "move the record beside it away to run the job again"

Status = Literal["complete", "diverged", "failed"]


@dataclass(frozen=True)
class Record:
    """One attempt at one job."""

    job: str
    status: Status
    spec: Mapping[str, Any]
    result: Mapping[str, Any]
    columns: Mapping[str, Any]
    """The row of scores.csv that the job fills; empty where it fills none (a grid point)."""
    reason: str
    """Why it failed, one line; empty otherwise."""
    provenance: Mapping[str, Any]
    path: Path
    attempt: int
    files: Mapping[str, str]
    """SHA-256 of the files beside it, by suffix."""

    @functools.cached_property
    def spec_digest(self) -> str:
        """What the result was made from."""
        return sha256_of(self.spec, parsed=True)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Load the arrays beside the record.

        Raises
        ------
        StudyError
            They are gone, or not those that were written.
        """
        path = self.path.with_suffix(".npz")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StudyError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != self.files.get(".npz"):
            raise StudyError(f"{path}: changed since it was written; {_AGAIN}")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


@dataclass(frozen=True)
class History:
    """What counts of the attempts at each job."""

    finished: Mapping[str, Record]
    """The newest attempt that is complete or diverged."""
    failed: Mapping[str, Record]
    """The newest attempt of all, where it failed."""
    every: tuple[Record, ...] = ()
    """All attempts, oldest first."""


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
        """Read every record, oldest attempt of a job first.

        Raises
        ------
        StudyError
            A record cannot be read; the file is named.
        """
        found = [_read_once(path) for path in sorted(self.results.glob("*/*.json"), key=str)]
        return sorted(found, key=lambda record: (record.job, record.attempt))

    def history(self) -> History:
        """Return what counts of every job's attempts."""
        finished: dict[str, Record] = {}
        last: dict[str, Record] = {}
        every = tuple(self.records())
        for record in every:
            last[record.job] = record
            if record.status != "failed":
                finished[record.job] = record
        failed = {job: record for job, record in last.items() if record.status == "failed"}
        return History(finished, failed, every)

    def has_finished(self, regime: str, job: str, spec: Mapping[str, Any]) -> bool:
        """Return whether the newest finished attempt at a job was made from this spec."""
        paths = sorted((self.results / regime).glob(f"{file_stem(job)}.a*.json"), key=_attempt)
        finished = [record for record in map(_read, paths) if record.status != "failed"]
        return bool(finished) and finished[-1].spec_digest == sha256_of(spec)

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
        stem = file_stem(job)
        attempt = 1 + max((_attempt(p) for p in folder.glob(f"{stem}.a*.json")), default=0)
        body["digest"] = sha256_of(json.loads(json.dumps(body)))
        while True:  # another process may take the same number between the look and the write
            path = folder / f"{stem}.a{attempt}.json"
            try:
                _claim(path.with_suffix(".claim"))
            except FileExistsError:
                attempt += 1
                continue
            break
        try:
            for suffix, content in files.items():
                write_file(path.with_suffix(suffix), content)
            write_file(path, json.dumps(body, indent=1, sort_keys=True, allow_nan=False).encode())
        finally:
            path.with_suffix(".claim").unlink(missing_ok=True)
        return _read(path)


def truth(labels: Any, ids: tuple[str, ...]) -> dict[str, Any]:
    """Return labels and ids as arrays for the statistics of later."""
    return {"labels": np.asarray(labels), "ids": np.array(ids, dtype=np.str_)}


def file_stem(job: str) -> str:
    """Turn a job's name into a file name: readable, safe, and still unique."""
    safe = re.sub(r"[^A-Za-z0-9._=,@+-]+", "-", job.partition("/")[2].replace("/", "__"))
    tag = hashlib.sha256(job.encode()).hexdigest()[:8]
    return f"{safe[:150]}.{tag}"


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
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"


def _attempt(path: Path) -> int:
    """Number of the attempt, from the file name."""
    match = re.search(r"\.a(\d+)\.json$", path.name)
    return int(match[1]) if match else 0


def _claim(path: Path) -> None:
    """Reserve an attempt's number; the claim lives only while its files are written."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    if path.with_suffix(".json").exists():  # only now: its writer let go of the claim a moment ago
        path.unlink()
        raise FileExistsError(path)


def _npz(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Pack arrays without pickles."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise TypeError("arrays of objects need pickles and are not written")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


_read_before: dict[Path, tuple[tuple[int, ...], Record]] = {}
"""Records that were read, with the state of their files: they never change, and a run reads them many times."""
_MANY = 50_000


def _read_once(path: Path) -> Record:
    """Read a record, unless its file is the one that was read before."""
    try:
        status = path.stat()
    except OSError:
        return _read(path)
    state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    before = _read_before.get(path)
    if before is None or before[0] != state:
        if len(_read_before) >= _MANY:
            _read_before.clear()
        before = _read_before[path] = (state, _read(path))
    return before[1]


def _read(path: Path) -> Record:
    """Read one record, or say what is wrong with it."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["schema"] != SCHEMA:
            raise StudyError(
                f"{path}: a result of schema {body['schema']}, this version reads {SCHEMA}; "
                "update the tool, or move the file away to run the job again"
            )
        digest = body.pop("digest")
        if digest != sha256_of(body, parsed=True):
            raise StudyError(f"{path}: edited since it was written; move it away to run the job again")
        _check_kinds(body)
        return Record(
            job=str(body["job"]),
            status=body["status"],
            spec=body["spec"],
            result=body["result"],
            columns=body["columns"],
            reason=body["reason"],
            provenance=body["provenance"],
            path=path,
            attempt=_attempt(path),
            files=body["files"],
        )
    except StudyError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError) as error:
        raise StudyError(
            f"{path}: not a result of this tool ({type(error).__name__}: {error}); "
            "move the file away to run the job again"
        ) from error


def _check_kinds(body: Mapping[str, Any]) -> None:
    """Refuse a record whose fields are not of the kinds that `Record` promises."""
    if body["status"] not in get_args(Status):
        raise ValueError(f"status {body['status']!r} is none of {', '.join(get_args(Status))}")
    for name in ("spec", "result", "columns", "provenance", "files"):
        if not isinstance(body[name], dict):
            raise TypeError(f"{name} is no table")
