"""One pass over a split: the entries of all backbones of a group, each with its own lock and resume point.

No lock is waited for while others are held: an entry that somebody else is writing is come back to when
the group is done and its locks are given back, so two processes cannot wait for each other.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from cache import LockTimeoutError, Writer
from pipeline.cache_folder import open_store
from pipeline.entry_facts import (
    groups_of,
    key_of,
    left_out,
    metadata_of,
    reasons,
    record,
    refuse_changed_images,
    refuse_other_values,
    tell,
)
from pipeline.executors import worker_count
from pipeline.extraction_groups import ExtractionGroup
from pipeline.jobs import ExtractJob
from pipeline.kept_networks import keep_only, ready_network, rows_a_batch
from pipeline.place import Done, Place
from stages.records import FeatureBatch, Progress

Outcome = Done | Exception

_BACKLOG = 4
"""Batches of features that may wait to be written, for each entry."""


def extract_group(group: ExtractionGroup, place: Place, progress: Progress | None = None) -> list[Outcome]:
    """Extract the features of every job of a group and publish each entry.

    Parameters
    ----------
    group : ExtractionGroup
    place : Place
    progress : Progress, optional
        Told how far the pass is.

    Returns
    -------
    list of Done or Exception
        One for each job, in their order: the failure of one costs no other.

    Raises
    ------
    MissingExtraError
        There is no torch on this machine.
    """
    import stages.extract

    _ = stages.extract.extract_together  # the first touch says in one line what is missing
    keep_only(group.crew)
    outcomes: dict[str, Outcome] = {}
    later: list[ExtractJob] = []
    for jobs in _of_one_batch_size(group.jobs, outcomes):
        later += _pass(jobs, place, progress, outcomes, wait=len(jobs) == 1)
    for job in later:
        if job.name in outcomes:  # it ran out of memory among the others
            keep_only([job.backbone])
        _pass([job], place, progress, outcomes, wait=True)
    return [outcomes[job.name] for job in group.jobs]


def _of_one_batch_size(
    jobs: Sequence[ExtractJob], outcomes: dict[str, Outcome]
) -> Iterator[list[ExtractJob]]:
    """Yield the jobs that have the same batches together; where each finds its own size they may differ."""
    found: dict[int, list[ExtractJob]] = {}
    for job in jobs:
        try:
            rows = rows_a_batch(job)
        except Exception as error:
            outcomes[job.name] = error
        else:
            found.setdefault(rows, []).append(replace(job, batch_size=rows))
    yield from found.values()


class _LaterError(Exception):
    """The entry cannot be part of this pass: it is come back to."""


@dataclass
class _Member:
    """One job of a pass, its writer, and what became of it."""

    job: ExtractJob
    device: str
    writer: Writer
    resumed: int
    """First row that is not staged yet."""
    error: Exception | None = None

    def append(self, batch: FeatureBatch) -> None:
        """Stage a batch; what fails ends this member alone."""
        if self.error is not None:
            return
        job, rows = self.job, batch.rows.tolist()
        try:
            self.writer.append(
                batch.features,
                job.split.labels[batch.rows],
                [job.split.ids[i] for i in rows],
                stop=batch.stop,
                row_metadata={"group": groups_of(job, rows)},
                excluded=reasons(job, batch.excluded),
            )
        except Exception as error:
            self.error = error


def _pass(
    jobs: Sequence[ExtractJob],
    place: Place,
    progress: Progress | None,
    outcomes: dict[str, Outcome],
    *,
    wait: bool,
) -> list[ExtractJob]:
    """Do what can be done of some jobs in one pass; return those to come back to one by one."""
    from stages.vision.devices import is_out_of_memory

    started, later = time.perf_counter(), []
    members: list[_Member] = []
    try:
        with contextlib.ExitStack() as stack:
            for job in sorted(jobs, key=lambda job: job.key or ""):
                try:
                    members.append(_opened(job, place, stack, wait=wait))
                except (LockTimeoutError, _LaterError):
                    later.append(job)
                except Exception as error:
                    outcomes[job.name] = error
            seconds = _run(members, progress)
            if any(member.writer.published is None for member in members):
                refuse_changed_images(members[0].job, place)
            outcomes.update(_outcomes(members, place, started, seconds))
            if len(members) > 1:
                later += [member.job for member in members if is_out_of_memory(member.error)]
    except Exception as error:  # of the images: it concerns every job that reads them
        outcomes.update({m.job.name: error for m in members if m.job.name not in outcomes})
    return later


def _opened(job: ExtractJob, place: Place, stack: contextlib.ExitStack, *, wait: bool) -> _Member:
    """Take the right to write an entry, and see how far it has come."""
    from stages.extract.forward import is_compiled
    from stages.vision.devices import choose_device

    device = str(choose_device(job.device))
    rows, compiled = rows_a_batch(job), is_compiled(job.compile, choose_device(job.device), len(job.split))
    provenance = {"batch_size": rows, "num_workers": job.num_workers, "device": device, "compiled": compiled}
    metadata = {**metadata_of(job, **provenance), "expected_rows": len(job.split)}
    store = open_store(place.root, notify=tell)
    with contextlib.ExitStack() as own:
        writer = own.enter_context(store.writer(key_of(job), metadata, timeout=None if wait else 0.0))
        if not wait and writer.next_row < len(job.split) and writer.next_row % rows:
            raise _LaterError  # staged in other batches, which the rest of the group does not have
        stack.push(own.pop_all())
    return _Member(job, device, writer, writer.next_row)


def _run(members: Sequence[_Member], progress: Progress | None) -> float:
    """Decode once, run every network that is needed, stage what they give; return the seconds of that."""
    from stages.extract import extract_together

    running, networks = [], []
    for member in members:
        if member.resumed < len(member.job.split):
            try:
                networks.append(ready_network(member.job, member.device))
            except Exception as error:
                member.error = error
            else:
                running.append(member)
    if not running:
        return 0.0
    job, started = running[0].job, time.perf_counter()
    results = extract_together(
        networks,
        job.split,
        starts=[member.resumed for member in running],
        batch_size=rows_a_batch(job),
        on_bad_image=job.on_bad_image,
        num_workers=job.num_workers,
        progress=progress,
        wanted=lambda place: running[place].error is None,
        image_sha256=job.image_sha256,
    )
    with _writing(_BACKLOG * len(running)) as stage, contextlib.closing(results):
        for place, result in results:
            if isinstance(result, Exception):
                running[place].error = running[place].error or result
            else:
                stage(running[place], result)
    return time.perf_counter() - started


@contextlib.contextmanager
def _writing(backlog: int) -> Iterator[Callable[[_Member, FeatureBatch], None]]:
    """Stage batches in a thread of its own; where it falls behind, the forward passes wait for it."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:

        def stage(member: _Member, batch: FeatureBatch) -> None:
            waiting.append(pool.submit(member.append, batch))
            if len(waiting) > backlog:
                waiting.popleft().result()

        yield stage


def _outcomes(members: Sequence[_Member], place: Place, started: float, seconds: float) -> dict[str, Outcome]:
    """Publish what there is, side by side: an entry is built in a process of its own."""
    with ThreadPoolExecutor(worker_count(None), thread_name_prefix="publish") as pool:
        found = pool.map(lambda member: _outcome(member, place, started, seconds, len(members)), members)
        return {member.job.name: outcome for member, outcome in zip(members, found, strict=True)}


def _outcome(member: _Member, place: Place, started: float, seconds: float, together: int) -> Outcome:
    """Publish the entry of a member, or say why there is none; ``seconds`` are the pass without start-up."""
    job, writer = member.job, member.writer
    try:
        if member.error is not None:
            return member.error
        if writer.published is not None:
            refuse_other_values(job, writer.published)
            return Done(f"{len(writer.published.ids)} rows, cached by another process meanwhile")
        entry = writer.publish()
        rate = (len(job.split) - member.resumed) / seconds if seconds else 0.0
        more = {"resumed_at": member.resumed, "images_per_second": rate, "together": together}
        record(job, place, entry, started, **more)
        refuse_other_values(job, entry)
    except Exception as error:
        return error
    shared = f", one decode for {together}" if together > 1 else ""
    how = f"at {rate:.0f} images/s{shared}" if rate else "that were computed before"
    return Done(f"{len(entry.ids)} rows {how}", left_out(entry))
