"""A record: one attempt at one job, read from its file and checked.

A record is JSON: the job's name and spec, how the attempt ended, the result, and provenance. Arrays
(per-example scores) lie beside it as ``.npz`` without pickles, fitted probes as ``.safetensors``.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cache import sha256_of
from pipeline.errors import StudyError

SCHEMA = 1
"""Grows when the meaning of a record's fields changes."""

SUMMARY = ("value", "steps")

_ZEROS = "0" * 64
_STATED = re.compile(r'\n "digest": "([0-9a-f]{64})"')
_RESULT, _BEHIND_RESULT = '\n "result": ', ',\n "schema": '
_NOT_THERE = "it counts as not there, until its job (or `penultimate analyse read-outs`) runs again"
_AGAIN = "move the record beside it away to run the job again"

Status = Literal["complete", "diverged", "failed"]


@dataclass(frozen=True)
class Record:
    """One attempt at one job."""

    job: str
    status: Status
    spec: Mapping[str, Any]
    result_text: str
    """The result as it stands in the file; see `result`."""
    columns: Mapping[str, Any]
    """The row of scores.csv that the job fills; empty where it fills none (a grid point)."""
    reason: str
    """Why it failed, one line; empty otherwise."""
    provenance: Mapping[str, Any]
    path: Path
    attempt: int
    files: Mapping[str, str]
    """SHA-256 of the files beside it, by suffix."""
    digest: str
    """SHA-256 of its text: another attempt under the same file name has another one."""
    spec_digest: str
    """SHA-256 of the spec: what the result was made from."""
    summary: Mapping[str, Any]
    """Of the result what planning needs (`SUMMARY`), without parsing the rest."""

    @property
    def result(self) -> Mapping[str, Any]:
        """The result, parsed when it is asked for and not kept: it is most of a record, and there are thousands.

        Raises
        ------
        StudyError
            It is no table, though the record's digest is right.
        """
        try:
            parsed = json.loads(self.result_text)
            if isinstance(parsed, dict):
                return parsed
        except (ValueError, RecursionError):
            pass
        raise StudyError(f"{self.path}: its result is no table of JSON; {_AGAIN}")

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


class UnreadableRecordError(StudyError):
    """A file where a record should be is none, or not as it was written."""


def file_stem(job: str) -> str:
    """Turn a job's name into a file name: readable, safe, and still unique."""
    safe = re.sub(r"[^A-Za-z0-9._=,@+-]+", "-", job.partition("/")[2].replace("/", "__"))
    tag = hashlib.sha256(job.encode()).hexdigest()[:8]
    return f"{safe[:150]}.{tag}"


def attempt_of(path: Path) -> int:
    """Number of the attempt, from the file name."""
    match = re.search(r"\.a(\d+)\.json$", path.name)
    return int(match[1]) if match else 0


def record_text(body: Mapping[str, Any]) -> str:
    """Spell a record: JSON for people, with what makes thousands of them quick to read.

    That is the SHA-256 of its spec, the result's summary, and the SHA-256 of itself, taken with zeros in its place.
    """
    found = {"spec_digest": sha256_of(body["spec"]), "summary": _summary(body["result"])}
    text = json.dumps({**body, **found, "digest": _ZEROS}, indent=1, sort_keys=True, allow_nan=False)
    return text.replace(_line(_ZEROS), _line(_digest_of(text, _ZEROS)), 1)


def _digest_of(text: str, digest: str) -> str:
    """Return the SHA-256 of a record's text with zeros in the place of the digest that it holds."""
    return hashlib.sha256(text.replace(_line(digest), _line(_ZEROS), 1).encode()).hexdigest()


def _line(digest: str) -> str:
    """How the digest stands at the top of a record: no text of JSON holds a line break."""
    return f'\n "digest": "{digest}"'


def read_record(path: Path) -> Record:
    """Read one record.

    Raises
    ------
    UnreadableRecordError
        Half written, edited since, or no record at all.
    StudyError
        A record of another schema: a version of this tool knows what it says, so it is not passed over.
    """
    try:
        text = path.read_text(encoding="utf-8")
        stated = _STATED.search(text)
        whole = stated is not None and stated[1] == _digest_of(text, stated[1])
        body, result = _apart(text) if whole else (json.loads(text), None)
        if body["schema"] != SCHEMA:
            raise StudyError(
                f"{path}: a result of schema {body['schema']!r}, this version reads {SCHEMA}; "
                "update the tool, or move the file away to run the job again"
            )
        rest = {name: value for name, value in body.items() if name != "digest"}
        if not whole and body["digest"] != sha256_of(rest, parsed=True):  # the spelling of the first version
            raise UnreadableRecordError(f"{path}: edited since it was written; {_NOT_THERE}")
        _check_kinds(body)
        if result is None:
            result = json.dumps(body["result"])
        return Record(
            job=body["job"],
            status=body["status"],
            spec=body["spec"],
            result_text=result,
            columns=body["columns"],
            reason=body["reason"],
            provenance=body["provenance"],
            path=path,
            attempt=attempt_of(path),
            files=body["files"],
            digest=body["digest"],
            spec_digest=body.get("spec_digest") or sha256_of(body["spec"], parsed=True),
            summary=body["summary"] if "summary" in body else _summary(json.loads(result)),
        )
    except StudyError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError) as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise UnreadableRecordError(
            f"{path}: half written, or not a result of this tool ({what}); {_NOT_THERE}"
        ) from error


def _summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a result what planning needs."""
    return {name: result[name] for name in SUMMARY if name in result}


def _apart(text: str) -> tuple[dict[str, Any], str | None]:
    """Return a record spelled by `record_text` with an empty result, and the result's text, which is not parsed.

    None, and the record as it is, where another schema has spelled it otherwise.
    """
    before, _, rest = text.partition(_RESULT)
    result, _, behind = rest.partition(_BEHIND_RESULT)
    if not behind:
        return json.loads(text), None
    return json.loads(f"{before}{_RESULT}{{}}{_BEHIND_RESULT}{behind}"), result


_read_before: dict[Path, tuple[tuple[int, ...], Record]] = {}
"""Records that were read, with the state of their files: they never change, and a run reads them many times."""
_MANY = 50_000


def read_once(path: Path) -> Record:
    """Read a record, unless its file is the one that was read before; raises as `read_record`."""
    try:
        status = path.stat()
    except OSError:
        return read_record(path)
    state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    before = _read_before.get(path)
    if before is None or before[0] != state:
        if len(_read_before) >= _MANY:
            _read_before.clear()
        before = _read_before[path] = (state, read_record(path))
    return before[1]


def _check_kinds(body: Mapping[str, Any]) -> None:
    """Refuse a record whose fields are not of the kinds that `Record` promises."""
    if body["status"] not in get_args(Status):
        raise ValueError(f"status {body['status']!r} is none of {', '.join(get_args(Status))}")
    body = {"summary": {}, "spec_digest": "", **body}  # which earlier versions did not write
    for name in ("spec", "result", "columns", "provenance", "files", "summary"):
        if not isinstance(body[name], dict):
            raise TypeError(f"{name} is no table")
    for name in ("job", "reason", "spec_digest"):
        if not isinstance(body[name], str):
            raise TypeError(f"{name} is no text")
