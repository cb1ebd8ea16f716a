"""Jobs on a real dask cluster: every job comes back, whoever dies; what does not fit is told before the first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the package distributed is not installed")

from pipeline.dask_jobs import run_on_dask
from pipeline.errors import SurroundingsError
from stages.errors import ProbeError
from tests.pipeline.cluster import Cluster, dask_cluster

MODULE = """
import os, signal, time
from pathlib import Path
from stages.errors import ProbeError

def double(n):
    return 2 * n

def refuse_three(n):
    if n == 3:
        raise ProbeError("three is refused")
    return n

def kill_three(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n

def slow(job):
    folder, n = job
    Path(folder, f"{n}.{time.time_ns()}").touch()
    time.sleep(1.0)
    return os.getppid()

def patient(job):
    folder, n = job
    Path(folder, f"{n}.begun").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        Path(folder, f"{n}.saved").touch()
        raise
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "dask_tasks.py").write_text(MODULE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        root = Path(__file__).resolve().parents[2]
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
        import dask_tasks

        yield dask_tasks
    sys.modules.pop("dask_tasks", None)


@pytest.fixture(scope="module")
def cluster(tasks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), workers=2) as cluster:
        yield cluster


def test_every_job_comes_back_with_what_it_returned(tasks, cluster: Cluster) -> None:
    assert dict(run_on_dask(tasks.double, range(7), cluster.address)) == {n: 2 * n for n in range(7)}
    assert list(run_on_dask(tasks.double, [], cluster.address)) == []


def test_a_job_that_raises_is_an_outcome_and_the_others_finish(tasks, cluster: Cluster) -> None:
    outcomes = dict(run_on_dask(tasks.refuse_three, range(6), cluster.address))
    error = outcomes.pop(3)
    assert isinstance(error, ProbeError)
    assert outcomes == {n: n for n in (0, 1, 2, 4, 5)}


def test_a_job_that_kills_its_process_every_time_is_alone_in_failing(tasks, cluster: Cluster) -> None:
    outcomes = dict(run_on_dask(tasks.kill_three, range(6), cluster.address))
    error = outcomes.pop(3)
    assert isinstance(error, RuntimeError)
    assert "its worker died" in str(error)
    assert outcomes == {n: n for n in (0, 1, 2, 4, 5)}


def test_a_worker_that_is_killed_costs_no_job(tasks, cluster: Cluster, tmp_path: Path) -> None:
    jobs = [(str(tmp_path), n) for n in range(6)]
    outcomes, killed = {}, None
    for job, outcome in run_on_dask(tasks.slow, jobs, cluster.address):
        outcomes[job] = outcome
        if killed is None:
            killed = outcome
            os.kill(killed, signal.SIGKILL)  # the dask worker that had this job
    assert set(outcomes) == set(jobs)
    assert all(isinstance(outcome, int) for outcome in outcomes.values())


def test_broken_off_jobs_save_what_they_have(tasks, cluster: Cluster, tmp_path: Path) -> None:
    def interrupt() -> None:
        while len(list(tmp_path.glob("*.begun"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    jobs = [(str(tmp_path), n) for n in range(4)]
    with pytest.raises(KeyboardInterrupt):
        list(run_on_dask(tasks.patient, jobs, cluster.address))
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert len(list(tmp_path.glob("*.begun"))) == 2
    assert dict(run_on_dask(tasks.double, [1], cluster.address)) == {1: 2}


def test_what_does_not_fit_is_told_before_the_first_job(
    tasks, cluster: Cluster, tmp_path: Path, monkeypatch
) -> None:
    with pytest.raises(SurroundingsError, match="no worker has a GPU: start some with"):
        list(run_on_dask(tasks.double, [1], cluster.address, needs_gpu=lambda _: True))
    gone = tmp_path / "gone"
    with pytest.raises(SurroundingsError, match=f"does not see {gone}") as caught:
        list(run_on_dask(tasks.double, [1], cluster.address, paths=[tmp_path, gone]))
    assert len(str(caught.value).splitlines()) == 2
    monkeypatch.setattr("pipeline.dask_jobs.versions", lambda: {"python": "2.7"})
    with pytest.raises(SurroundingsError, match=r"other versions \(.*python 3\.\d+\.\d+ there, 2\.7 here"):
        list(run_on_dask(tasks.double, [1], cluster.address))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_one_line(tasks, address: str, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.dask_jobs.CONNECT_SECONDS", 2.0)
    with pytest.raises(SurroundingsError, match="no dask scheduler answers") as caught:
        list(run_on_dask(tasks.double, [1], address))
    assert len(str(caught.value).splitlines()) == 1


def test_jobs_that_want_a_gpu_go_where_one_is(tasks, tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "gpu", workers=1, options=("--resources", "GPU=1")) as cluster:
        found = dict(run_on_dask(tasks.double, [1, 2], cluster.address, needs_gpu=lambda _: None))
    assert found == {1: 2, 2: 4}
