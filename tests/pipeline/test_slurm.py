"""Jobs on a real Slurm of one node: results, deaths, cancellation, preemption, and what is told beforehand."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the package submitit is not installed")

from pipeline.errors import SurroundingsError
from pipeline.fitness import needs_of_run
from pipeline.job_output import WorkerDiedError
from pipeline.remote import Terms
from pipeline.slurm_jobs import slurm as slurm_executor
from pipeline.tables import SlurmTable
from tests.pipeline.slurm import Slurm, lacking, slurm

MODULE = """
import os, signal, time
from pathlib import Path
from stages.errors import ProbeError

def some(job):
    what, n = job
    if what == "refuse":
        raise ProbeError("three is refused")
    if what == "die":
        print("three says farewell", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * n, os.environ["OMP_NUM_THREADS"]

def patient(job):
    folder, n = job
    begun = Path(folder, f"{n}.begun")
    if begun.exists():
        return "went on"
    begun.touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        Path(folder, f"{n}.saved").touch()
        raise
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Slurm]:
    if why := lacking():
        pytest.skip(why)
    with slurm() as found, pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "SLURM_CONF"):
            patch.setenv(name, found.environment[name])
        yield found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "slurm_tasks.py").write_text(MODULE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        root = Path(__file__).resolve().parents[2]
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
        import slurm_tasks

        yield slurm_tasks
    sys.modules.pop("slurm_tasks", None)


def run_on_slurm(function, jobs, output: Path, *, retries=1, table=None, there=(), **terms):
    """Submit and look after."""
    table = table or SlurmTable(cpus=1)
    with slurm_executor(table, output, retries=retries) as remote, needs_of_run(there, (), ()) as needs:
        told = Terms(needs, **terms)
        remote.check(jobs, told)
        yield from remote.run(function, jobs, told)


def test_every_job_comes_back_and_one_that_dies_every_time_is_alone_in_failing(
    tasks, node: Slurm, tmp_path: Path
) -> None:
    jobs = [("die", 3), ("refuse", 4), *(("double", n) for n in range(3))]  # two arrays: the largest is 3
    outcomes = dict(run_on_slurm(tasks.some, jobs, tmp_path))
    died, refused = outcomes.pop(("die", 3)), outcomes.pop(("refuse", 4))
    assert outcomes == {("double", n): (2 * n, "1") for n in range(3)}
    assert (type(refused).__name__, str(refused)) == ("ProbeError", "three is refused")
    assert isinstance(died, WorkerDiedError)
    assert "(2 times): slurm job" in str(died)
    assert "three says farewell" in died.tail
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_somebody_cancels_is_a_failure_and_not_tried_again(
    tasks, node: Slurm, tmp_path: Path
) -> None:
    def cancel() -> None:
        wait_for(tmp_path / "7.begun")
        node.command("scancel", *node.wait_for("RUNNING"))

    threading.Thread(target=cancel, daemon=True).start()
    ((_, outcome),) = run_on_slurm(
        tasks.patient, [(str(tmp_path), 7)], tmp_path / "out", resumes=lambda _: True
    )
    assert isinstance(outcome, WorkerDiedError)
    assert "cancelled in slurm" in str(outcome)
    assert (tmp_path / "7.saved").exists()


def test_a_job_that_is_asked_to_save_goes_on_from_there(tasks, node: Slurm, tmp_path: Path) -> None:
    """What Slurm does before a preemption and before the time is up, without retries of deaths."""

    def ask() -> None:
        wait_for(tmp_path / "8.begun")
        node.command("scancel", "--signal=USR2", *node.wait_for("RUNNING"))

    threading.Thread(target=ask, daemon=True).start()
    jobs = [(str(tmp_path), 8)]
    outcomes = run_on_slurm(tasks.patient, jobs, tmp_path / "out", retries=0, resumes=lambda _: True)
    assert dict(outcomes) == {(str(tmp_path), 8): "went on"}
    assert (tmp_path / "8.saved").exists()


def test_a_run_that_is_broken_off_lets_its_jobs_save_and_takes_back_the_others(
    tasks, node: Slurm, tmp_path: Path
) -> None:
    def interrupt() -> None:
        wait_for(tmp_path / "1.begun", tmp_path / "0.begun")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        list(run_on_slurm(tasks.patient, [(str(tmp_path), n) for n in range(3)], tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["0.saved", "1.saved"]
    assert set(node.queue().values()) <= {"CANCELLED", "COMPLETED", "FAILED"}


def test_what_does_not_fit_is_told_in_one_line(tasks, node: Slurm, tmp_path: Path) -> None:
    with pytest.raises(
        SurroundingsError, match=r"slurm does not take the jobs: .*partition.* \(asked for: --part"
    ):
        list(run_on_slurm(tasks.some, [("double", 1)], tmp_path, table=SlurmTable(partition="nowhere")))
    with pytest.raises(SurroundingsError, match="no node of any partition has a GPU"):
        list(run_on_slurm(tasks.some, [("double", 1)], tmp_path, wants_gpu=lambda _: True))
    gone = tmp_path / "gone"
    with pytest.raises(SurroundingsError, match=f"^a slurm node does not see {gone}: put it where both do"):
        list(run_on_slurm(tasks.some, [("double", 1)], tmp_path, there=[gone]))


def test_no_slurm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SurroundingsError, match="no sbatch on this machine: run it where jobs are submitted"):
        list(run_on_slurm(print, [1], tmp_path))


def wait_for(*paths: Path) -> None:
    """Wait until files are there; a failure of the test shows what was lacking."""
    end = time.monotonic() + 60
    while not all(path.exists() for path in paths) and time.monotonic() < end:
        time.sleep(0.05)
