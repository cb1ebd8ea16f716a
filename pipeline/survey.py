"""A look at this machine: data sets, backbones, and which cached entry stands for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from cache.locks import silent
from pipeline.cache_folder import open_store
from pipeline.config import Study
from pipeline.jobs import ExtractJob, Planned
from pipeline.locate import Located, locate
from pipeline.pins import Spot
from pipeline.plan_extraction import plan_extraction
from pipeline.resolve import Resolved, resolve
from pipeline.shelf import Shelf
from stages.records import Backbone, Progress


@dataclass(frozen=True)
class Survey:
    """What a study finds on this machine."""

    resolved: Resolved
    shelf: Shelf
    extraction: tuple[Planned, ...]
    located: Mapping[Spot, Located]

    @property
    def conflicts(self) -> dict[Spot, str]:
        """What stands between the study's pins and this machine."""
        return {spot: found.conflict for spot, found in self.located.items() if found.conflict}

    @property
    def conflict_lines(self) -> tuple[str, ...]:
        """Return that for people, once what holds for several backbones alike."""
        return tuple(dict.fromkeys(self.conflicts.values()))


def survey(
    study: Study,
    *,
    need_images: bool = False,
    root: Path | None = None,
    rehash: bool = False,
    weights_sha256: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
    notify: Callable[[str], None] = silent,
) -> Survey:
    """Resolve the names of a study and find its cached features; see `pipeline.plan.plan` for the parameters.

    Raises
    ------
    StudyError
        With one line per mistake in data sets and backbones.
    """
    resolved = resolve(study, root=root, need_images=need_images, rehash=rehash, progress=progress)
    resolved = replace(resolved, backbones=tuple(_known(b, weights_sha256) for b in resolved.backbones))
    shelf = Shelf(open_store(root, notify=notify))
    extraction = tuple(plan_extraction(study, resolved, shelf))
    keys: dict[Spot, str | None] = {
        (p.job.backbone.label, p.job.dataset, p.job.split.name): p.job.key
        for p in extraction
        if isinstance(p.job, ExtractJob)
    }
    return Survey(resolved, shelf, extraction, locate(study, resolved, keys, shelf))


def _known(backbone: Backbone, weights_sha256: Mapping[str, str]) -> Backbone:
    """Fill in the hash of weights that running code has told."""
    sha256 = weights_sha256.get(backbone.label)
    return replace(backbone, weights=replace(backbone.weights, sha256=sha256)) if sha256 else backbone
