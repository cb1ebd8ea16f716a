"""How many processes the jobs of a stage share."""

from __future__ import annotations

from dataclasses import replace

from pipeline.executors import worker_count
from pipeline.jobs import ProbeJob, TrainJob
from pipeline.plan import plan
from pipeline.stage_run import _processes, with_its_memory

GRID = {"budget": "tiny", "steps": 2, "learning_rates": [0.1, 0.01], "device": "cpu"}


def trainings(workshop, device: str, **fields: object) -> list[TrainJob]:
    workshop.images()
    study = workshop.load({"fine_tune": {**GRID, **fields}})
    jobs = [p.job for p in plan(study).jobs if isinstance(p.job, TrainJob)]
    return [replace(job, recipe=replace(job.recipe, device=device)) for job in jobs]


def test_trainings_on_a_gpu_come_one_by_one_unless_the_study_says_otherwise(workshop) -> None:
    assert _processes(trainings(workshop, "cuda"), 8) == 1
    assert _processes(trainings(workshop, "cuda", jobs_per_device=3), 1) == 3


def test_trainings_on_the_cpu_share_the_cores(workshop) -> None:
    jobs = trainings(workshop, "cpu", jobs_per_device=3)
    assert _processes(jobs, 5) == 5
    assert _processes(jobs, None) == worker_count(None)


def test_forward_passes_have_the_machine_to_themselves(workshop) -> None:
    workshop.images()
    extractions = [p.job for p in plan(workshop.load({})).jobs if p.stage == "extract" and p.job]
    assert extractions
    assert _processes(extractions, 8) == 1


def test_probes_at_work_together_share_the_memory() -> None:
    job = ProbeJob("probe/a/b", "a", "b", "top_1", {}, {}, {}, {}, memory=1000)
    assert with_its_memory(job, 3).memory == 333
    assert with_its_memory(replace(job, memory=None), 3).memory is None
