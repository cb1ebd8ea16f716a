"""Which extractions run together: those that want the same pixels of the same images, as memory allows.

Backbones are put into crews first, whose networks are in memory at the same time; a crew then goes through
all image sets, so that each network is built once. A job that only gives features new labels needs no
network and stays by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.jobs import ExtractJob, Job
from stages.backbones import lookup
from stages.errors import BackboneError, InputError
from stages.records import Backbone

_UNKNOWN_BYTES = 1 << 30
"""Taken for a network of which neither parameters nor file are known."""
_SHARE = 0.5
"""Of free memory that networks may take; batches and activations need the rest."""


@dataclass(frozen=True)
class ExtractionGroup:
    """Extractions that share one decode; each has an entry and a record of its own."""

    jobs: tuple[ExtractJob, ...]
    crew: tuple[Backbone, ...]
    """Whose networks stay in memory afterwards: the next group needs them too."""

    @property
    def name(self) -> str:
        """What a bar calls it."""
        return (
            f"{self.jobs[0].name} and {len(self.jobs) - 1} more" if len(self.jobs) > 1 else self.jobs[0].name
        )


Unit = Job | ExtractionGroup
"""What is run at a time."""


def plan_units(jobs: Sequence[Job], free_bytes: Callable[[str], int]) -> list[Unit]:
    """Put extractions into groups and leave everything else as it is.

    Parameters
    ----------
    jobs : sequence of Job
    free_bytes : callable
        Tells the memory that is free for the networks of a device, as it is written in the study.

    Returns
    -------
    list of Job or ExtractionGroup
        Every job once. Other jobs first, in their order; then the groups, crew by crew.
    """
    alone = [job for job in jobs if not isinstance(job, ExtractJob) or job.twins or job.key is None]
    together = [job for job in jobs if isinstance(job, ExtractJob) and not job.twins and job.key is not None]
    groups: list[Unit] = []
    for kind in _gathered(together, _kind):
        memory = free_bytes(kind[0].device)
        for crew in crews([jobs[0].backbone for jobs in _gathered(kind, lambda job: job.backbone)], memory):
            mine = [job for job in kind if job.backbone in crew]
            groups += [ExtractionGroup(tuple(shared), crew) for shared in _gathered(mine, _images)]
    return [*alone, *groups]


def crews(backbones: Sequence[Backbone], memory: int) -> list[tuple[Backbone, ...]]:
    """Put backbones together in their order, as many as have their weights in memory at the same time.

    A network needs its weights twice more while it is built; one that is too large for its share of the
    memory is a crew by itself.
    """
    found: list[list[Backbone]] = []
    for backbone in backbones:
        last = [*found[-1], backbone] if found else []
        sizes = [network_bytes(member) for member in last]
        if last and sum(sizes) + 2 * max(sizes) <= _SHARE * memory:
            found[-1] = last
        else:
            found.append([backbone])
    return [tuple(crew) for crew in found]


def each_job(outcomes: Iterable[tuple[Unit, Any]]) -> Iterator[tuple[Job, Any]]:
    """Yield every job with its own outcome, those too that were extracted together."""
    for unit, outcome in outcomes:
        if isinstance(unit, ExtractionGroup):
            each = [outcome] * len(unit.jobs) if isinstance(outcome, Exception) else outcome
            # What was done is told first: a failure of the machine ends the run.
            yield from sorted(
                zip(unit.jobs, each, strict=True), key=lambda pair: isinstance(pair[1], Exception)
            )
        else:
            yield unit, outcome


def network_bytes(backbone: Backbone) -> int:
    """Return about how much memory a network's weights take: from the table, else from their file."""
    try:
        parameters = lookup(backbone.name).parameters
    except BackboneError:
        parameters = 0
    if parameters:
        return 4 * parameters
    path = backbone.weights.path
    return path.stat().st_size if path is not None and path.is_file() else _UNKNOWN_BYTES


def free_bytes(device: str) -> int:
    """Return the memory that is free for networks on a device, as it is written in the study.

    Nothing where there is no such device, or no torch: each job then says so by itself.
    """
    try:
        from stages.vision import devices

        return devices.free_bytes(devices.choose_device(device))
    except (ImportError, InputError):
        return 0


def _kind(job: ExtractJob) -> Any:
    """What two jobs have to agree in for their networks to be in one crew."""
    facts = job.backbone.preprocessing
    fraction = facts.crop_fraction if facts.crop == "center" else None
    pixels = (facts.size, facts.interpolation, facts.crop, fraction)
    return (pixels, job.precision, job.on_bad_image, job.batch_size, job.num_workers, job.compile, job.device)


def _images(job: ExtractJob) -> Any:
    """What two jobs of a crew have to agree in to share a decode."""
    return (job.dataset, job.split.name, job.split.paths, job.image_sha256)


def _gathered(jobs: Sequence[ExtractJob], by: Callable[[ExtractJob], Any]) -> Iterator[list[ExtractJob]]:
    """Yield the jobs that agree in something together, in the order of the first of them."""
    found: dict[Any, list[ExtractJob]] = {}
    for job in jobs:
        found.setdefault(by(job), []).append(job)
    yield from found.values()
