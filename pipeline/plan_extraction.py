"""Planning of stage one: one extraction per backbone, data set and split whose images are here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cache import CacheKey
from pipeline.config import Study
from pipeline.jobs import ExtractJob, Planned
from pipeline.pins import pins_of
from pipeline.resolve import Images, Resolved, with_network
from pipeline.shelf import Shelf
from stages.extract.recipe import ingredients
from stages.records import Backbone, SplitName

DAMAGED = "what was there is damaged, and was set aside"
"""Why an entry is not in the cache any more."""


def plan_extraction(study: Study, resolved: Resolved, shelf: Shelf) -> Iterator[Planned]:
    """Say of every split whether its features are cached, can be taken from a twin, or need the network."""
    pins = pins_of(study)
    for backbone in with_network(resolved):
        for name, images in resolved.images.items():
            for split in images.dataset.splits:
                key = entry_key(study, backbone, images, split)
                job = _job(study, backbone, name, images, split, key)
                pin = pins.get((backbone.label, name, split))
                if pin is not None and (key is None or key.digest.startswith(pin.fingerprint)):
                    job = replace(job, content_digest=pin.content_digest)
                yield _planned(job, key, shelf)


def _planned(job: ExtractJob, key: CacheKey | None, shelf: Shelf) -> Planned:
    """Compare one job with the cache, which is listed only where something is missing."""
    if key is None:
        return Planned(job.name, "extract", "missing", "its weights are fetched first", job)
    if shelf.holds(key):
        return Planned(job.name, "extract", "done", f"cached as {key.digest[:12]}", job)
    twins = shelf.twins(key)
    if not twins:
        damaged = f": {DAMAGED}" if shelf.was_damaged(key.digest) else ""
        return Planned(job.name, "extract", "missing", f"not in the cache{damaged}", job)
    why = f"relabel: same images, other labels (features of {twins[0][:12]})"
    return Planned(job.name, "extract", "missing", why, replace(job, twins=twins))


def _job(
    study: Study, backbone: Backbone, name: str, images: Images, split: SplitName, key: CacheKey | None
) -> ExtractJob:
    """Put an extraction together."""
    settings = study.extract
    return ExtractJob(
        name=f"extract/{backbone.label}/{name}/{split}",
        backbone=backbone,
        dataset=name,
        split=images.dataset.splits[split],
        image_sha256=images.image_sha256[split],
        class_names=images.dataset.class_names,
        multi_label=images.dataset.multi_label,
        precision=settings.precision,
        on_bad_image=settings.on_bad_image,
        batch_size=None if settings.batch_size == "auto" else settings.batch_size,
        num_workers=settings.num_workers,
        compile=settings.compile,
        device=settings.device,
        key=None if key is None else key.digest,
    )


def entry_key(study: Study, backbone: Backbone, images: Images, split: SplitName) -> CacheKey | None:
    """Return the cache key of a split's features; None while the weights are unknown."""
    if backbone.weights.sha256 is None:
        return None
    return CacheKey.from_ingredients(
        ingredients(
            backbone,
            images.dataset.splits[split],
            images.image_sha256[split],
            images.dataset.class_names,
            precision=study.extract.precision,
            on_bad_image=study.extract.on_bad_image,
        )
    )
