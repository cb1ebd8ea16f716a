"""The cached features of a study as tables: what the analyses read, whether or not the images are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache import Store
from pipeline.cache_folder import open_store
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.feature_tables import feature_table
from pipeline.jobs import ProbeJob
from pipeline.plan import Plan
from stages.names import did_you_mean
from stages.records import FeatureTable, SplitName


@dataclass
class CachedTables:
    """The features that a plan's probes are fitted to.

    Parameters
    ----------
    plan : Plan
        Made for the stages that need no images.
    """

    plan: Plan
    store: Store = field(default_factory=open_store)

    @property
    def study(self) -> Study:
        """The study planned."""
        return self.plan.study

    @property
    def jobs(self) -> dict[tuple[str, str], ProbeJob]:
        """Backbone and data set to the probe whose features are cached."""
        found = [p.job for p in self.plan.of("probe") if p.part is None]
        return {(job.backbone, job.dataset): job for job in found if isinstance(job, ProbeJob)}

    def backbones(self, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the labels asked for, all of the study's by default; an unknown one is a mistake."""
        known = [backbone.label for backbone in self.plan.resolved.backbones]
        return _known("backbone", wanted, known)

    def datasets(self, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the data sets asked for, all of the study's by default; an unknown one is a mistake."""
        return _known("data set", wanted, [table.name for table in self.study.dataset])

    def entries(self, backbone: str, dataset: str) -> Mapping[SplitName, str]:
        """Return the key of every cached split.

        Raises
        ------
        StudyError
            The features are not all cached.
        """
        job = self.jobs.get((backbone, dataset))
        if job is None and self.plan.conflicts:
            raise StudyError(self.plan.conflicts)
        if job is None:
            raise StudyError(
                f"{dataset} through {backbone}: features are not cached; `penultimate extract` makes them, "
                "`penultimate cache pull` fetches them"
            )
        return job.entries

    def table(self, backbone: str, dataset: str, split: SplitName) -> FeatureTable:
        """Read one split; its features stay memory-mapped."""
        entries = self.entries(backbone, dataset)
        if split not in entries:
            raise StudyError(f"{dataset} has no split {split!r}; it has {', '.join(entries)}")
        return feature_table(self.store.read(entries[split]))

    def path_of(self, dataset: str, split: SplitName) -> Mapping[str, Path] | None:
        """Return where the image of each id lies, None where the images are not on this machine."""
        images = self.plan.resolved.images.get(dataset)
        if images is None:
            return None
        rows = images.dataset.splits[split]
        return dict(zip(rows.ids, rows.paths, strict=True))


def _known(what: str, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return what is asked for, or refuse what is unknown."""
    for name in wanted:
        if name not in known:
            raise StudyError(f"the study has no {what} {name!r}{did_you_mean(name, known)}")
    return tuple(wanted or known)
