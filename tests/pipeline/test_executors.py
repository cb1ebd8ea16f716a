from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipeline.executors import run_jobs, threads_of_job, worker_count
from pipeline.stage_run import one_line
from stages.errors import ProbeError

# Workers import the functions by name, so these stand in a module of their own on the path.
MODULE = """
import os, signal, time
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
    time.sleep(0.05)
    return n, os.getpid()

def kill_three_at_once(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n

def kill_all(n):
    os.kill(os.getpid(), signal.SIGKILL)

def exit_three(n):
    if n == 3:
        raise SystemExit(7)
    return n

def threads(n):
    import threadpoolctl
    import numpy, scipy.linalg
    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    return pools, os.environ["OMP_NUM_THREADS"]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "executor_tasks.py").write_text(MODULE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder))
        import executor_tasks

        yield executor_tasks
    sys.modules.pop("executor_tasks", None)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_comes_back_with_what_it_returned(tasks, workers: int) -> None:
    assert dict(run_jobs(tasks.double, range(7), workers=workers)) == {n: 2 * n for n in range(7)}
    assert list(run_jobs(tasks.double, [], workers=workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_raises_is_an_outcome_and_the_others_finish(tasks, workers: int) -> None:
    outcomes = dict(run_jobs(tasks.refuse_three, range(6), workers=workers))
    error = outcomes.pop(3)
    assert isinstance(error, ProbeError)
    assert one_line(error) == "three is refused"
    assert outcomes == {n: n for n in range(6) if n != 3}


def test_a_job_that_kills_its_worker_costs_nobody_else(tasks) -> None:
    began = time.monotonic()
    outcomes = dict(run_jobs(tasks.kill_three, range(8), workers=2))
    error = outcomes.pop(3)
    assert isinstance(error, RuntimeError)
    assert "worker died" in str(error)
    assert sorted(n for n, _ in outcomes.values()) == [n for n in range(8) if n != 3]
    assert all(pid != os.getpid() for _, pid in outcomes.values())
    assert time.monotonic() - began < 60


def test_workers_that_die_at_once_end_in_one_failure_a_job(tasks) -> None:
    outcomes = list(run_jobs(tasks.kill_all, range(3), workers=2))
    assert sorted(job for job, _ in outcomes) == [0, 1, 2]
    assert all("worker died" in str(error) for _, error in outcomes)


def test_many_jobs_behind_one_that_kills_its_worker_while_they_are_submitted(tasks) -> None:
    """The pool may break between two submissions; that must not end the run."""
    jobs = [3, *range(10, 18)]
    outcomes = dict(run_jobs(tasks.kill_three_at_once, jobs, workers=2))
    assert isinstance(outcomes.pop(3), RuntimeError)
    assert outcomes == {n: n for n in jobs[1:]}


def test_a_job_that_leaves_its_process_is_a_failure(tasks) -> None:
    outcomes = dict(run_jobs(tasks.exit_three, range(5), workers=2))
    assert {n: v for n, v in outcomes.items() if n != 3} == {n: n for n in range(5) if n != 3}
    assert isinstance(outcomes[3], BaseException)


def test_workers_keep_to_their_share_of_the_cores(tasks, monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share = max(1, worker_count(None) // 2)
    for _, (pools, variable) in run_jobs(tasks.threads, range(2), workers=2):
        assert pools
        assert max(pools) <= share
        assert variable == str(share)


def test_a_job_takes_no_more_threads_than_the_environment_allows(monkeypatch) -> None:
    monkeypatch.setattr("pipeline.executors.worker_count", lambda _asked: 8)
    for allowed, together, threads in (
        ("3", 1, 3),
        ("3", 4, 2),
        ("16", 1, 8),
        ("", 2, 4),
        ("0", 1, 8),
        ("x", 1, 8),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", allowed)
        assert threads_of_job(together) == threads


def test_asked_for_workers_are_given_and_else_one_a_core() -> None:
    assert worker_count(3) == 3
    assert worker_count(None) == len(os.sched_getaffinity(0))


def test_an_interruption_goes_on_upwards(tasks) -> None:
    def interrupt(n: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(interrupt, [1, 2], workers=1))


def test_interrupted_workers_do_not_outlive_the_run(tmp_path: Path, tasks) -> None:
    """Ctrl-C while workers sleep: the process ends soon, and takes its workers along."""
    script = textwrap.dedent(
        """
        import os, time
        from pathlib import Path
        from pipeline.executors import run_jobs
        from executor_sleep import sleep

        try:
            list(run_jobs(sleep, range(4), workers=2))
        except KeyboardInterrupt:
            raise SystemExit(4)
        """
    )
    (tmp_path / "executor_sleep.py").write_text(
        f"import os, time\nfrom pathlib import Path\n"
        f"def sleep(n):\n    Path({str(tmp_path)!r}, f'pid{{os.getpid()}}').touch()\n    time.sleep(120)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("pid*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 4
    finally:
        process.kill()
    pids = [int(path.name[3:]) for path in tmp_path.glob("pid*")]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
