"""Doing one job: inputs from the cache, one call of a stage, the result into cache or ledger.

These functions run in this process or in a worker's; they take the job and a `Place`, both picklable.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.jobs import ExtractJob, Job, ProbeJob, TrainJob
from pipeline.ledger import Ledger
from pipeline.place import Done, Place
from pipeline.provenance import provenance
from pipeline.work_extract import extract
from pipeline.work_probe import probe
from pipeline.work_train import train
from stages.records import Progress


def perform(job: Job, place: Place, progress: Progress | None = None, *, threads: int | None = None) -> Done:
    """Do one job and keep its result.

    Parameters
    ----------
    job : Job
    place : Place
    progress : Progress, optional
        Told how far the job is.
    threads : int, optional
        Of a training on the CPU.

    Returns
    -------
    Done
        For the log; the result itself is in the cache or in the ledger.
    """
    if isinstance(job, ExtractJob):
        return extract(job, place, progress)
    if isinstance(job, ProbeJob):
        return probe(job, place, progress)
    return train(job, place, progress, threads)


def record_failure(job: Job, place: Place, reason: str, log: Path) -> None:
    """Write the failed attempt of a job into the ledger."""
    spec: Mapping[str, Any] = {"key": job.key} if isinstance(job, ExtractJob) else job.spec
    Ledger(place.output).write(
        _folder(job),
        job.name,
        status="failed",
        reason=reason,
        spec=spec,
        columns={} if isinstance(job, ExtractJob) else job.columns,
        provenance=provenance(log=str(log)),
    )


def _folder(job: Job) -> str:
    """Folder of the job's records below results/."""
    if isinstance(job, TrainJob):
        return job.regime
    return "linear_probe" if isinstance(job, ProbeJob) else "extract"
