"""Jobs on a real dask cluster: every job comes back, whoever dies; what does not fit is told before the first."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the package distributed is not installed")

from pipeline.dask_jobs import dask
from pipeline.errors import SurroundingsError
from pipeline.fitness import needs_of_run
from pipeline.job_output import WorkerDiedError
from pipeline.remote import Terms
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
        print("three says farewell", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    return n

def kill_worker(n):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)

def by_name(job):
    return {"kill": kill_worker, "double": double}[job[0]](job[1])

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


def run_on_dask(function, jobs, address, *, retries=2, there=(), shared=(), **terms):
    """Connect, look at the workers, run."""
    with dask(address, retries=retries) as remote, needs_of_run(there, (), shared) as needs:
        told = Terms(needs, **terms)
        remote.check(jobs, told)
        yield from remote.run(function, jobs, told)


def test_every_job_comes_back_with_what_it_returned(tasks, cluster: Cluster) -> None:
    assert dict(run_on_dask(tasks.double, range(7), cluster.address)) == {n: 2 * n for n in range(7)}
    assert list(run_on_dask(tasks.double, [], cluster.address)) == []


def test_a_job_that_raises_is_an_outcome_and_the_others_finish(tasks, cluster: Cluster) -> None:
    outcomes = dict(run_on_dask(tasks.refuse_three, range(6), cluster.address))
    error = outcomes.pop(3)
    assert isinstance(error, ProbeError)
    assert outcomes == {n: n for n in (0, 1, 2, 4, 5)}


def test_a_job_that_kills_its_process_every_time_is_alone_in_failing(
    tasks, cluster: Cluster, tmp_path: Path
) -> None:
    output_of = lambda n: tmp_path / f"{n}.running"  # noqa: E731
    outcomes = dict(run_on_dask(tasks.kill_three, range(6), cluster.address, output_of=output_of))
    error = outcomes.pop(3)
    assert isinstance(error, WorkerDiedError)
    assert str(error).endswith("in native code (3 times)")
    assert "three says farewell" in error.tail
    assert "Fatal Python error: Segmentation fault" in error.tail
    assert outcomes == {n: n for n in (0, 1, 2, 4, 5)}
    assert list(tmp_path.iterdir()) == []


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


def test_a_job_that_kills_its_worker_every_time_is_alone_in_failing(tasks, tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "own", workers=2, allowed_failures=0) as cluster:
        jobs = [("kill", 0), *(("double", n) for n in range(4))]
        outcomes = dict(run_on_dask(tasks.by_name, jobs, cluster.address))
    error = outcomes.pop(("kill", 0))
    assert isinstance(error, WorkerDiedError)
    assert "dask gave it up" in str(error)
    assert outcomes == {("double", n): 2 * n for n in range(4)}


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
        list(run_on_dask(tasks.double, [1], cluster.address, wants_gpu=lambda _: True))
    gone = tmp_path / "gone"
    with pytest.raises(SurroundingsError, match=f"does not see {gone}") as caught:
        list(run_on_dask(tasks.double, [1], cluster.address, there=[tmp_path, gone]))
    assert len(str(caught.value).splitlines()) == 2
    monkeypatch.setattr("pipeline.fitness.versions", lambda: {"python": "2.7"})
    with pytest.raises(SurroundingsError, match=r"other versions \(.*python 3\.\d+\.\d+ there, 2\.7 here"):
        list(run_on_dask(tasks.double, [1], cluster.address))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_one_line(tasks, address: str, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.dask_client.CONNECT_SECONDS", 2.0)
    with pytest.raises(SurroundingsError, match="no dask scheduler answers") as caught:
        list(run_on_dask(tasks.double, [1], address))
    assert len(str(caught.value).splitlines()) == 1


def test_what_listens_but_is_no_scheduler_is_one_line(tasks, cluster: Cluster, monkeypatch) -> None:
    """A socket that never says a word, and the address of a worker."""
    monkeypatch.setattr("pipeline.dask_client.CONNECT_SECONDS", 2.0)
    monkeypatch.setattr("pipeline.dask_client._CLOSE_SECONDS", 1.0)
    with dask(cluster.address, retries=0) as remote:
        worker = next(iter(remote.workers()))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (f"tcp://127.0.0.1:{silent.getsockname()[1]}", worker, "tls://127.0.0.1:9"):
            with pytest.raises(SurroundingsError, match="no dask scheduler answers") as caught:
                list(run_on_dask(tasks.double, [1], address))
            assert len(str(caught.value).splitlines()) == 1


def test_a_worker_that_hangs_is_named_before_the_first_job(tasks, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.dask_jobs.ANSWER_SECONDS", 10.0)
    with dask_cluster(tmp_path / "own", workers=2) as cluster:
        with dask(cluster.address, retries=0) as remote:
            remote.client.wait_for_workers(2, timeout=60)
            hung = next(iter(remote.workers()))
            pid = remote.client.run(os.getpid, workers=[hung])[hung]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(SurroundingsError, match=f"^worker {hung}: does not answer within 10 s"):
                list(run_on_dask(tasks.double, [1], cluster.address))
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_folder_of_the_same_name_on_another_machine_is_another_folder(
    tasks, cluster: Cluster, tmp_path: Path
) -> None:
    """Its token is not there: here it is taken away, as it would be missing on a disk of the worker's own."""
    with dask(cluster.address, retries=0) as remote, needs_of_run((), (), [tmp_path]) as needs:
        next(tmp_path.glob(".same-folder-*")).unlink()
        with pytest.raises(
            SurroundingsError, match=f"another folder under the name of {tmp_path}: put it on"
        ):
            remote.check([], Terms(needs))


def test_a_worker_that_comes_later_is_looked_at_too(tasks, cluster: Cluster, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with (
        dask(cluster.address, retries=0) as remote,
        needs_of_run([gone], (), ()) as needs,
        pytest.raises(SurroundingsError, match=f"^worker tcp://.*: does not see {gone}: put it where both"),
    ):
        list(remote.run(tasks.double, [1], Terms(needs)))


def test_jobs_that_want_a_gpu_go_where_one_is_and_a_scheduler_that_goes_ends_the_run(
    tasks, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("pipeline.dask_client.CONNECT_SECONDS", 5.0)
    with dask_cluster(tmp_path / "gpu", workers=1, options=("--resources", "GPU=1")) as cluster:
        found = dict(run_on_dask(tasks.double, [1, 2], cluster.address, wants_gpu=lambda _: None))
        assert found == {1: 2, 2: 4}
        jobs = [(str(tmp_path), n) for n in range(6)]
        with pytest.raises(SurroundingsError, match="the dask scheduler is gone: start it, then run again"):
            for _ in run_on_dask(tasks.slow, jobs, cluster.address, wants_gpu=lambda _: True):
                cluster.end_scheduler()
