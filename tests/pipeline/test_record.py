"""A record's file: read as it was written, told where it was not, and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import sha256_of
from pipeline.errors import StudyError
from pipeline.ledger import Ledger, file_stem
from tests.pipeline.records import JOB, write

BODY: Mapping[str, Any] = {
    "schema": 1,
    "job": JOB,
    "status": "complete",
    "reason": "",
    "spec": {},
    "columns": {},
    "result": {},
    "files": {},
    "provenance": {},
}
JOBS = st.text(min_size=1, max_size=200)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    arrays = {
        "test_scores": np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2),
        "ids": np.array(["a", "é"]),
    }
    written = write(
        ledger,
        result={"value": 0.5},
        reason="",
        arrays=arrays,
        attachments={".safetensors": b"bytes"},
        provenance={"user": "me"},
    )
    (read,) = ledger.records()
    assert read == written
    assert (read.job, read.status, read.attempt) == (JOB, "complete", 1)
    assert (read.spec, read.result, read.columns) == ({"a": 1}, {"value": 0.5}, {"value": 0.5})
    for name, array in read.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == arrays[name].dtype
    assert read.path.with_suffix(".safetensors").read_bytes() == b"bytes"
    assert read.path.parent == tmp_path / "results" / "linear_probe"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema": 1, "job": "probe/net',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'"text"',
        b"null",
        b"[" * 100_000,
        json.dumps({"name": "somebody else's file"}).encode(),
        *(
            json.dumps({k: v for k, v in BODY.items() if k != lost}).encode()
            for lost in ("job", "status", "spec", "result", "columns")
        ),
        json.dumps({**BODY, "spec": "text"}).encode(),
        json.dumps({**BODY, "columns": [1]}).encode(),
        json.dumps({**BODY, "result": None}).encode(),
        json.dumps({**BODY, "status": "wonderful"}).encode(),
        json.dumps({**BODY, "reason": [1]}).encode(),
    ],
    ids=lambda content: content[:30].decode("latin-1"),
)
def test_a_file_that_is_no_record_is_told_and_spoils_nothing_else(tmp_path: Path, content: bytes) -> None:
    ledger = Ledger(tmp_path)
    record = write(ledger)
    foreign = ledger.results / "linear_probe" / "foreign.a1.json"
    foreign.write_bytes(content)
    history = ledger.history()
    assert history.every == (record,)
    assert list(history.unreadable) == [foreign]
    said = history.unreadable[foreign]
    assert said.startswith(f"{foreign}: ")
    assert "counts as not there" in said
    assert "\n" not in said


@pytest.mark.parametrize("body", [{**BODY, "schema": 2}, {"schema": 2}], ids=["alike", "unlike"])
def test_a_record_of_another_schema_is_refused_by_name(tmp_path: Path, body: Mapping[str, Any]) -> None:
    """Its version knows what it says: passing it over would run a finished job again."""
    ledger = Ledger(tmp_path)
    foreign = write(ledger).path.with_name("foreign.a1.json")
    foreign.write_text(json.dumps(body))
    with pytest.raises(StudyError, match=r"foreign\.a1\.json: a result of schema 2, this version reads 1"):
        ledger.history()


def test_a_record_that_is_a_folder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "linear_probe" / "x.a1.json"
    folder.mkdir(parents=True)
    assert list(Ledger(tmp_path).history().unreadable) == [folder]


def test_an_edited_record_is_told_by_name(tmp_path):
    ledger = Ledger(tmp_path)
    record = write(ledger)
    record.path.write_text(record.path.read_text().replace("0.5", "0.9"))
    history = ledger.history()
    assert history.finished == {}
    assert "edited since it was written" in history.unreadable[record.path]


@pytest.mark.parametrize("spelling", ["canonical", "indented"])
def test_records_of_earlier_versions_count(tmp_path: Path, spelling: str) -> None:
    """They have no digest of their spec; the first ones had the digest of their canonical JSON."""
    ledger = Ledger(tmp_path)
    record = write(ledger, spec={"b": [1, 2.5], "a": "é"})
    body = json.loads(record.path.read_text())
    assert body.pop("spec_digest") == sha256_of({"a": "é", "b": [1, 2.5]})
    old = body.pop("digest")
    if spelling == "canonical":
        text = json.dumps({**body, "digest": sha256_of(body)})
    else:
        zeros = json.dumps({**body, "digest": "0" * 64}, indent=1, sort_keys=True)
        text = zeros.replace("0" * 64, hashlib.sha256(zeros.encode()).hexdigest())
    assert old not in text
    record.path.write_text(text)
    (read,) = ledger.records()
    assert read.spec_digest == record.spec_digest
    assert ledger.history().result_of(JOB, record.spec_digest) == read
    assert ledger.has_finished("linear_probe", JOB, record.spec_digest)


def test_arrays_of_objects_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(TypeError, match="pickles"):
        write(ledger, arrays={"x": np.array([{"a": 1}], dtype=object)})
    assert not list(tmp_path.rglob("*.json"))


def test_pickles_beside_a_record_are_not_loaded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record = write(ledger, arrays={"x": np.zeros(2)})
    np.savez(record.path.with_suffix(".npz"), x=np.array([Exploding()], dtype=object))
    with pytest.raises(StudyError, match="changed since it was written"):
        record.arrays()


class Exploding:
    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    raise SystemExit("a pickle was run")


def test_changed_or_lost_arrays_are_refused_by_name(tmp_path):
    record = Ledger(tmp_path).write(
        "linear_probe", "probe/a/b", status="complete", spec={}, columns={}, provenance={},
        arrays={"labels": np.arange(3)},
    )  # fmt: skip
    assert record.arrays()["labels"].tolist() == [0, 1, 2]
    arrays = record.path.with_suffix(".npz")
    content = bytearray(arrays.read_bytes())
    content[40] ^= 1
    arrays.write_bytes(bytes(content))
    with pytest.raises(StudyError, match="changed since it was written"):
        record.arrays()
    arrays.unlink()
    with pytest.raises(StudyError, match="cannot be read"):
        record.arrays()


@given(JOBS, JOBS)
def test_file_stems_are_as_unique_as_jobs(one: str, other: str) -> None:
    assert (file_stem(one) == file_stem(other)) == (one == other)


@given(JOBS)
def test_file_stems_are_names_on_every_file_system(job: str) -> None:
    stem = file_stem(job)
    assert len(f"{stem}.a1000.safetensors".encode()) <= 255
    assert not set(stem) & set('/\\:*?"<>|[]\x00\n ')
    assert stem.isascii()


def test_jobs_that_look_alike_as_file_names_keep_apart() -> None:
    assert file_stem("probe/a/b") != file_stem("probe/a__b")
    assert file_stem("probe/" + "x" * 300) != file_stem("probe/" + "x" * 301)
    assert file_stem("probe/resnet50.a1_in1k/pets").startswith("resnet50.a1_in1k__pets.")
