"""Where jobs run: what the study and the command line say of it, and what is refused before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import load_study
from pipeline.elsewhere import files_of, wants_gpu
from pipeline.errors import StudyError
from pipeline.execution import with_execution
from pipeline.fitness import needs_of_run, unfit
from pipeline.job_output import SUFFIX, kept_output, tail, under_way
from pipeline.jobs import ExtractJob
from pipeline.plan import plan
from pipeline.tables import SlurmTable


def test_flags_stand_over_the_study(workshop) -> None:
    file = workshop.study({"execution": {"executor": "slurm"}, "slurm": {"time": 90, "cpus": 8}})
    study = load_study(file)
    assert (study.execution.executor, study.execution.retries, study.slurm.minutes) == ("slurm", 2, 90)
    other = with_execution(
        study, executor="dask:tcp://a:1", retries=0, slurm=["time=2-0", "setup=a", "setup=b"]
    )
    assert (other.execution.executor, other.execution.retries) == ("dask:tcp://a:1", 0)
    assert (other.slurm.minutes, other.slurm.cpus, other.slurm.setup) == (2880, 8, ("a", "b"))
    assert with_execution(study) == study


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--executor", "dsk"],
            "--executor: 'dsk' is none of local, dask:ADDRESS (dask:tcp://HOST:8786), slurm",
        ),
        (["--slurm", "tim=4"], "--slurm tim=4: not KEY=VALUE of a known key; did you mean 'time'?"),
        (["--slurm", "time=soon"], "--slurm time: time is 'soon'; write it as Slurm does"),
        (["--slurm", "cpus=0"], "--slurm cpus: Input should be greater than 0"),
    ],
)
def test_wrong_flags_are_one_line_and_nothing_is_started(
    workshop, penultimate, words: list[str], line: str
) -> None:
    workshop.images()
    result = penultimate("run", workshop.study(), *words)
    assert result.status == 2
    assert [error[: len(line)] for error in result.errors] == [line]
    assert workshop.is_untouched()


def test_a_wrong_table_is_told_with_its_place(workshop) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(
            workshop.study({"execution": {"executor": "condor"}, "slurm": {"memory": "much", "tim": "1"}})
        )
    lines = "\n".join(caught.value.mistakes)
    assert "execution.executor: 'condor' is none of local" in lines
    assert "slurm.memory" in lines
    assert "slurm.tim: unknown key; did you mean 'time'?" in lines


@pytest.mark.parametrize("time", ["0", "1-", "a:b", "-5"])
def test_times_that_are_none_are_refused(time: str) -> None:
    with pytest.raises(ValueError, match="time is"):
        SlurmTable(time=time)


def test_an_executor_that_cannot_be_reached_is_exit_3_and_leaves_the_study_alone(
    workshop, penultimate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    monkeypatch.setattr("pipeline.dask_client.CONNECT_SECONDS", 1.0)
    workshop.images()
    result = penultimate("extract", workshop.study(), "--executor", "dask:tcp://127.0.0.1:9")
    assert result.status == 3
    (line,) = result.errors
    assert line.startswith("tcp://127.0.0.1:9: no dask scheduler answers")
    assert not list((workshop.folder / "out").rglob("*.json"))


def test_a_run_needs_its_weights_and_one_image_of_each_folder(workshop) -> None:
    workshop.images()
    weights = workshop.folder / "net.pth"
    weights.touch()
    backbone = {"name": "test_resnet.r160_in1k", "weights": "file:net.pth", "size": 32}
    study = workshop.load({"backbone": [backbone], "extract": {"device": "cuda"}})
    jobs = [p.job for p in plan(study).to_run("extract")]
    assert {path.name for path in files_of(jobs)} == {"net.pth", "0.ppm"}
    assert len(files_of(jobs)) == 5
    assert [wants_gpu(job) for job in jobs if isinstance(job, ExtractJob)] == [True, True]
    wanted = {"auto": True, "cpu": False}
    for device, expected in wanted.items():
        other = workshop.load({"backbone": [backbone], "extract": {"device": device, "precision": "tf32"}})
        asked = [wants_gpu(p.job) for p in plan(other).to_run("extract") if isinstance(p.job, ExtractJob)]
        assert asked == [expected, expected]


@pytest.mark.parametrize("settings", [{"precision": "tf32", "device": "cpu"}, {"device": "cuda:7"}])
def test_features_that_this_machine_cannot_make_are_one_line_before_any_work(
    workshop, penultimate, settings: dict[str, str]
) -> None:
    workshop.images()
    result = penultimate("extract", workshop.study({"extract": settings}))
    assert result.status == 2
    (line,) = result.errors
    assert line.startswith("extract: ")
    assert workshop.is_untouched()


def test_what_a_worker_lacks_is_told_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with needs_of_run([tmp_path / "gone"], [shared], [shared]) as needs:
        assert unfit(needs) == [
            f"does not see {tmp_path / 'gone'}: put it where both do, such as a network file system"
        ]
        monkeypatch.setattr("os.access", lambda path, mode: False)
        assert unfit(needs)[1].startswith(f"cannot write to {shared}: ")
        next(shared.iterdir()).unlink()
        assert unfit(needs)[1].startswith(f"has another folder under the name of {shared}")
    with needs_of_run([], [], [shared]):
        assert len(list(shared.iterdir())) == 1
    assert list(shared.iterdir()) == []


def test_what_a_job_prints_is_kept_until_it_ends(tmp_path: Path) -> None:
    file = tmp_path / f"job{SUFFIX}"
    program = f"""
import os
from pathlib import Path
from pipeline.job_output import kept_output
with kept_output(Path({str(file)!r})):
    print("first words")
print("after", flush=True)
with kept_output(Path({str(file)!r})):
    print("last words", flush=True)
    os.abort()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "after\n"
    assert "process " in under_way(tmp_path)["job"]
    words = tail(file)
    assert "last words" in words
    assert "first words" not in words
    assert "Fatal Python error: Aborted" in words
    assert under_way(tmp_path) == {}
    assert tail(file) == ""


def test_output_that_cannot_be_kept_stops_no_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with kept_output(tmp_path / "file" / "job"):
        os.write(1, b"said")
    assert capfd.readouterr().out == "said"


def test_status_shows_what_is_under_way(workshop, penultimate) -> None:
    from pipeline.cache_folder import cache_root
    from pipeline.elsewhere import output_file
    from pipeline.place import Place

    workshop.images()
    file = workshop.study()
    study = load_study(file)
    job = plan(study).to_run("extract")[0].job
    assert job is not None
    mark = output_file(job, Place(cache_root(), study.output))
    mark.parent.mkdir(parents=True)
    mark.write_text("on node7, process 3, since 2026-01-01T00:00:00+00:00\n", encoding="utf-8")
    assert f"under way:\n  {job.name}: on node7, process 3, since" in penultimate("status", file).out
