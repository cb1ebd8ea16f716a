"""Networks that stay built from one pass to the next: start-up is paid once per network, not per job."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pipeline.jobs import ExtractJob
from stages.records import Backbone

if TYPE_CHECKING:
    from stages.extract.forward import ReadyNetwork

_kept: dict[tuple[Backbone, str, str, bool], ReadyNetwork] = {}
"""By backbone, device, precision, and whether it is compiled."""


def ready_network(job: ExtractJob, device: str) -> ReadyNetwork:
    """Return the network of a job, built where it is not kept.

    Raises
    ------
    WeightsError, BackboneError
        It cannot be built.
    InputError
        The device cannot do what the job asks for.
    """
    from stages.extract.forward import is_compiled, prepare
    from stages.vision.devices import choose_device

    where = choose_device(device)
    compiled = is_compiled(job.compile, where, len(job.split))
    name = (job.backbone, device, job.precision, compiled)
    if name not in _kept:
        _kept[name] = prepare(job.backbone, where, job.precision, compiled=compiled)
    return _kept[name]


def rows_a_batch(job: ExtractJob) -> int:
    """Return how many rows a batch of a job has, found by trial where the study leaves it open."""
    if job.batch_size is not None:
        return job.batch_size
    from stages.extract.batch_size import find_batch_size
    from stages.vision.devices import choose_device

    return find_batch_size(ready_network(job, str(choose_device(job.device))))


def keep_only(crew: Collection[Backbone]) -> None:
    """Forget every other network."""
    for name in [name for name in _kept if name[0] not in crew]:
        del _kept[name]
