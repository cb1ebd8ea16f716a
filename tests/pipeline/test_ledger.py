from __future__ import annotations

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
from pipeline.ledger import Ledger, differences
from pipeline.states import _in_a_line
from tests.pipeline.records import JOB, write


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


def test_what_json_cannot_hold_is_refused_and_leaves_no_claim(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write(Ledger(tmp_path), result={"value": float("nan")})
    assert Ledger(tmp_path).records() == []


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
