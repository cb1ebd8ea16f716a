from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import sha256_of
from pipeline.errors import StudyError
from pipeline.ledger import Ledger, Record, differences, file_stem
from pipeline.states import _in_a_line

JOB = "probe/net/pets"


def write(ledger: Ledger, job: str = JOB, status: Any = "complete", **more: Any) -> Record:
    fields: dict[str, Any] = {"spec": {"a": 1}, "columns": {"value": 0.5}, "provenance": {"host": "here"}}
    return ledger.write("linear_probe", job, status=status, **{**fields, **more})


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


def test_an_attempt_is_written_once_and_never_changed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = write(ledger)
    before = first.path.read_bytes()
    second = write(ledger, spec={"a": 2})
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.path.read_bytes() == before
    assert len(ledger.records()) == 2


def test_the_newest_complete_attempt_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for n in range(12):  # 10 sorts before 9 as text
        write(ledger, spec={"n": n})
    write(ledger, status="failed", spec={"n": 99}, reason="it broke")
    history = ledger.history()
    assert history.finished[JOB].spec == {"n": 11}
    assert history.finished[JOB].attempt == 12
    assert history.failed[JOB].reason == "it broke"


def test_a_failure_is_over_once_the_job_has_succeeded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write(ledger, status="failed", reason="it broke")
    assert JOB in ledger.history().failed
    assert JOB not in ledger.history().finished
    write(ledger, status="diverged")
    assert JOB not in ledger.history().failed
    assert ledger.history().finished[JOB].status == "diverged"


def test_an_absent_folder_is_an_empty_ledger(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "nowhere").records() == []
    assert not (tmp_path / "nowhere").exists()


def _write_many(folder: Path, count: int) -> list[int]:
    return [write(Ledger(folder), spec={"n": n}).attempt for n in range(count)]


def test_concurrent_writers_get_attempts_of_their_own(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        futures = [pool.submit(_write_many, tmp_path, 15) for _ in range(4)]
        attempts = [n for future in futures for n in future.result(timeout=60)]
    assert sorted(attempts) == list(range(1, 61))
    assert len(Ledger(tmp_path).records()) == 60


def _write_and_die(folder: Path, at: str) -> None:
    """Be killed at the moment a file of that suffix is put in its place."""
    import pipeline.ledger as module

    system_write = module.write_file

    def deadly(path: Path, content: bytes) -> None:
        if path.suffix == at:
            os.kill(os.getpid(), signal.SIGKILL)
        system_write(path, content)

    module.write_file = deadly  # type: ignore[assignment]
    write(Ledger(folder), arrays={"n": np.arange(3)})


@pytest.mark.parametrize("at", [".npz", ".json"])
def test_a_killed_writer_leaves_its_number_to_the_next_one(tmp_path: Path, at: str) -> None:
    process = get_context("fork").Process(target=_write_and_die, args=(tmp_path, at))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert Ledger(tmp_path).records() == []
    record = write(Ledger(tmp_path), arrays={"n": np.arange(4)})
    assert record.attempt == 1
    assert record.arrays()["n"].tolist() == [0, 1, 2, 3]


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


def test_a_record_of_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    """Its version knows what it says: passing it over would run a finished job again."""
    ledger = Ledger(tmp_path)
    foreign = write(ledger).path.with_name("foreign.a1.json")
    foreign.write_text(json.dumps({**BODY, "schema": 2}))
    with pytest.raises(StudyError, match=r"foreign\.a1\.json: a result of schema 2, this version reads 1"):
        ledger.history()


def test_a_record_that_is_a_folder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "linear_probe" / "x.a1.json"
    folder.mkdir(parents=True)
    assert list(Ledger(tmp_path).history().unreadable) == [folder]


def test_a_lost_attempt_is_told_until_a_newer_one_is_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first, second = write(ledger, spec={"n": 1}), write(ledger, spec={"n": 2})
    second.path.write_bytes(second.path.read_bytes()[:100])
    history = ledger.history()
    assert history.finished[JOB] == first
    assert history.lost(JOB)
    assert not history.lost("probe/net/cars")
    assert not ledger.has_finished("linear_probe", JOB, sha256_of({"n": 2}))
    assert ledger.has_finished("linear_probe", JOB, sha256_of({"n": 1}))
    third = write(ledger, spec={"n": 3})
    assert third.attempt == 3
    assert ledger.history().finished[JOB] == third
    assert ledger.history().unreadable == {}


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


def test_what_json_cannot_hold_is_refused_and_leaves_no_claim(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write(Ledger(tmp_path), result={"value": float("nan")})
    assert Ledger(tmp_path).records() == []


# Names

JOBS = st.text(min_size=1, max_size=200)


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


# Differences

LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text("ab", max_size=3)
SPECS = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from("xyz"), LEAVES, max_size=3),
    max_size=4,
)


@given(SPECS)
def test_a_spec_does_not_differ_from_itself(spec: dict[str, Any]) -> None:
    assert list(differences(spec, json.loads(json.dumps(spec)))) == []


@given(SPECS, SPECS)
def test_differences_are_symmetric_and_found_whenever_the_specs_differ(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    there, back = list(differences(old, new)), list(differences(new, old))
    assert [line.split(":")[0] for line in there] == [line.split(":")[0] for line in back]
    # A key that is absent reads as null, and an empty table differs from nothing.
    assert bool(there) == (_without_nothing(old) != _without_nothing(new))


def _without_nothing(spec: Mapping[str, Any]) -> str:
    """Canonical text in which null leaves of the top level do not count."""
    return json.dumps({k: v for k, v in spec.items() if v is not None}, sort_keys=True)


def test_a_difference_says_place_before_and_after() -> None:
    old = {"probe": {"folds": 5, "seed": 0}, "features": {"train": "a" * 64}}
    new = {"probe": {"folds": 10, "seed": 0}, "features": {"train": "b" * 64}, "more": [1]}
    assert list(differences(old, new)) == [
        f'features.train: "{"a" * 17}...{"a" * 17}" -> "{"b" * 17}...{"b" * 17}"',
        "more: null -> [1]",
        "probe.folds: 5 -> 10",
    ]


def test_a_stale_job_tells_changes_as_far_as_a_line_goes() -> None:
    assert len(_in_a_line([f"probe.{n}: {n} -> 100" for n in range(99)])) < 220
    assert _in_a_line(["a" * 150, "b" * 150, "c"]) == f"{'a' * 150} and 2 more"
    assert _in_a_line(["a", "b", "c"]) == "a; b; c"
    assert list(differences({"x": 1e5, "y": 1 / 3}, {"x": 1e7, "y": 1 / 3 + 1e-9})) == [
        "x: 100000 -> 1e+07",
        "y: 0.3333333333333333 -> 0.33333333433333334",
    ]


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
