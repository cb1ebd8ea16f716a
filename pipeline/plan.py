"""The plan: which jobs a study consists of, which of them are done, and why the others are not.

Planning reads (tables, hashes, the cache's listing, the ledger) and decides; it changes no result, runs no
network and imports no torch. Running is another module's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from cache import CacheKey, Store
from pipeline.config import Study
from pipeline.jobs import STAGES, ExtractJob, Planned, Stage
from pipeline.ledger import Ledger
from pipeline.plan_probes import plan_probes
from pipeline.plan_training import plan_regime
from pipeline.resolve import Images, Resolved, open_store, resolve, with_network, without
from stages.extract.recipe import ingredients
from stages.records import Backbone, Progress, SplitName


@dataclass(frozen=True)
class Plan:
    """Every job of a study with its state, in the order in which stages run."""

    study: Study
    jobs: tuple[Planned, ...]
    resolved: Resolved
    notes: tuple[str, ...]
    """What a reader must know of the data sets as they were read."""

    def of(self, stage: Stage) -> tuple[Planned, ...]:
        """Return the jobs of one stage."""
        return tuple(job for job in self.jobs if job.stage == stage)

    def to_run(self, stage: Stage) -> tuple[Planned, ...]:
        """Return the jobs of one stage that can be run now."""
        return tuple(p for p in self.of(stage) if p.state in ("missing", "stale") and p.job is not None)


def plan(
    study: Study,
    *,
    stages: tuple[Stage, ...] = STAGES,
    root: Path | None = None,
    rehash: bool = False,
    weights_sha256: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Plan:
    """Compare what a study asks for with what is there.

    Parameters
    ----------
    study : Study
        From `pipeline.config.load_study`.
    stages : tuple of str
        The stages that shall be run. Where they need no images (probe, join), a data set whose images are
        not on this machine is planned from its cached features, found by name.
    root : Path, optional
        The cache's root; default $PENULTIMATE_CACHE, else ~/.cache/penultimate.
    rehash : bool
        Hash every image again.
    weights_sha256 : mapping of str to str, optional
        Hashes of weights that only running code can tell, by backbone label.
    progress : Progress, optional
        Told about hashing, the one slow part.

    Returns
    -------
    Plan

    Raises
    ------
    StudyError
        With one line per mistake in data sets and backbones.

    Examples
    --------
    >>> from pipeline.config import Study
    >>> backbone = {"name": "resnet18", "weights": "random"}
    >>> study = Study.model_validate(
    ...     {"study": {"name": "s", "output": str(getfixture("tmp_path") / "out")},
    ...      "backbone": [backbone], "datasets": ["digits"]}
    ... )
    >>> [(job.name, job.state) for job in plan(study, root=getfixture("tmp_path")).jobs][:2]
    [('extract/resnet18/digits/train', 'missing'), ('extract/resnet18/digits/test', 'missing')]
    """
    need_images = any(stage in stages for stage in ("extract", "fine-tune", "scratch"))
    resolved = resolve(study, root=root, need_images=need_images, rehash=rehash, progress=progress)
    resolved = replace(resolved, backbones=tuple(_known(b, weights_sha256) for b in resolved.backbones))
    store, history = open_store(root), Ledger(study.output).history()
    jobs = list(_plan_extraction(study, resolved, store))
    keys = {
        (p.job.backbone.label, p.job.dataset, p.job.split.name): p.job.key
        for p in jobs
        if isinstance(p.job, ExtractJob)
    }
    notes = [
        f"{name}: {note}" for name, images in resolved.images.items() for note in images.dataset.notes
    ] + [f"{name}: images are not on this machine ({why}); cached features are found by name"
         for name, why in resolved.absent.items()]  # fmt: skip
    notes += [note for name, images in resolved.images.items() for note in _twins(name, images)]
    if study.probe.enabled:
        jobs += plan_probes(study, resolved, store, keys, history)
    readable = _readable(study, resolved, jobs, store)
    for regime in ("fine_tune", "from_scratch"):
        table = study.training(regime)
        if table is not None:
            jobs += plan_regime(study, regime, table, readable, history)
    return Plan(study, tuple(jobs), resolved, tuple(notes))


def _twins(name: str, images: Images) -> Iterator[str]:
    """Say which images stand byte for byte in two splits: a score then partly measures memory."""
    splits = images.dataset.splits
    for one, other in itertools.combinations(splits, 2):
        first = dict(zip(images.image_sha256[one], splits[one].ids, strict=True))
        pairs = zip(images.image_sha256[other], splits[other].ids, strict=True)
        twins = [(first[digest], id_) for digest, id_ in pairs if digest in first]
        if twins:
            example = f"{twins[0][0]!r} and {twins[0][1]!r}"
            yield f"{name}: {len(twins)} images of {other} are byte-identical to images of {one}, such as {example}"


def _known(backbone: Backbone, weights_sha256: Mapping[str, str]) -> Backbone:
    """Fill in the hash of weights that running code has told."""
    sha256 = weights_sha256.get(backbone.label)
    return replace(backbone, weights=replace(backbone.weights, sha256=sha256)) if sha256 else backbone


def _readable(study: Study, resolved: Resolved, jobs: Sequence[Planned], store: Store) -> Resolved:
    """Leave the images out of training that extraction could not read, where the policy is to exclude.

    Which ones they are stands in the cached entries; until a data set has been extracted through one
    backbone at least, its training waits.
    """
    if study.extract.on_bad_image == "error":
        return resolved
    excluded: dict[tuple[str, str], set[str]] = {}
    for planned in jobs:
        if isinstance(planned.job, ExtractJob) and planned.state == "done" and planned.job.key:
            place = planned.job.dataset, planned.job.split.name
            if place not in excluded:
                excluded[place] = {id_ for id_, _ in store.read(planned.job.key).metadata["excluded"]}
    images, absent = {}, dict(resolved.absent)
    for name, all_images in resolved.images.items():
        if all((name, split) in excluded for split in all_images.dataset.splits):
            images[name] = without(all_images, {s: excluded[name, s] for s in all_images.dataset.splits})
        else:
            absent[name] = "which images cannot be read is known once its features are extracted"
    return replace(resolved, images=images, absent=absent)


def _plan_extraction(study: Study, resolved: Resolved, store: Store) -> Iterator[Planned]:
    """One job per backbone, data set and split whose images are here."""
    settings = study.extract
    for backbone in with_network(resolved):
        for name, images in resolved.images.items():
            for split_name, split in images.dataset.splits.items():
                key = entry_key(study, backbone, images, split_name)
                job = ExtractJob(
                    name=f"extract/{backbone.label}/{name}/{split_name}",
                    backbone=backbone,
                    dataset=name,
                    split=split,
                    image_sha256=images.image_sha256[split_name],
                    class_names=images.dataset.class_names,
                    multi_label=images.dataset.multi_label,
                    precision=settings.precision,
                    on_bad_image=settings.on_bad_image,
                    batch_size=settings.batch_size,
                    num_workers=settings.num_workers,
                    device=settings.device,
                    key=key,
                )
                if key is not None and key in store:
                    yield Planned(job.name, "extract", "done", f"cached as {key[:12]}", job)
                else:
                    why = "its weights are fetched first" if key is None else "not in the cache"
                    yield Planned(job.name, "extract", "missing", why, job)


def entry_key(study: Study, backbone: Backbone, images: Images, split: SplitName) -> str | None:
    """Return the digest of the cache key of a split's features; None while the weights are unknown."""
    if backbone.weights.sha256 is None:
        return None
    parts = ingredients(
        backbone,
        images.dataset.splits[split],
        images.image_sha256[split],
        images.dataset.class_names,
        precision=study.extract.precision,
        on_bad_image=study.extract.on_bad_image,
    )
    return CacheKey.from_ingredients(parts).digest
