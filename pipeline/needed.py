"""Which cached entries a study needs, and which of them are not here: one answer for all that ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.locks import silent
from pipeline.choices import AmbiguousEntriesError, Choice
from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.jobs import ExtractJob
from pipeline.locate import Located
from pipeline.pins import Spot
from pipeline.survey import Survey, survey
from pipeline.wanted import Wanted, wanted_coordinates
from stages.records import SPLITS

_FEW = 4


@dataclass(frozen=True)
class Needed:
    """One split of one data set through one backbone."""

    spot: Spot
    found: Located
    wanted: Wanted
    """What those ask for who have no images."""
    extraction: ExtractJob | None
    """What makes the entry; None where its images are not here."""

    @property
    def twins(self) -> tuple[str, ...]:
        """Entries here that have its features under other labels."""
        return () if self.extraction is None else self.extraction.twins

    @property
    def name(self) -> str:
        """Backbone, data set and split."""
        return "/".join(self.spot)

    @property
    def absent(self) -> bool:
        """Whether nothing here can stand for it."""
        return self.found.key is None and self.found.choice is None and not self.found.conflict


@dataclass(frozen=True)
class Picked:
    """The entries that a command is about."""

    keys: list[str]
    lacking: list[str] = field(default_factory=list)
    """What a study needs and is not there, a line each."""
    remarks: list[str] = field(default_factory=list)
    """What whoever gets them has to know, a line each."""


@dataclass(frozen=True)
class Needs:
    """Everything that the probes of a study read."""

    study: Study
    survey: Survey
    entries: tuple[Needed, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the entries that are here."""
        return tuple(dict.fromkeys(e.found.key for e in self.entries if e.found.key is not None))

    @property
    def absent(self) -> tuple[Needed, ...]:
        """What is not here."""
        return tuple(entry for entry in self.entries if entry.absent)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Where several entries match."""
        return tuple(e.found.choice for e in self.entries if e.found.choice is not None)

    def refuse_doubt(self) -> None:
        """Refuse to go on where it is not known which entries are meant.

        Raises
        ------
        AmbiguousEntriesError
            Several match.
        StudyError
            Pins or labels speak against what is here.
        """
        if self.choices:
            raise AmbiguousEntriesError(self.choices, self.study.file, self.survey.conflict_lines)
        if self.survey.conflicts:
            raise StudyError(self.survey.conflict_lines)

    def absences(
        self, absent: Sequence[Needed] | None = None, *, where: str = "not here", fetch: str = "pull it"
    ) -> list[str]:
        """Say what is not here and what brings it here, one line for each way."""
        ways: dict[str, list[str]] = {}
        for entry in self.absent if absent is None else absent:
            ways.setdefault(self._way(entry, fetch), []).append(entry.name)
        count = f"of {len(self.entries)} entries that {self.study.name} needs"
        return [
            f"{len(names)} {count} {'is' if len(names) == 1 else 'are'} {where}: {few(names)}: {way}"
            for way, names in ways.items()
        ]

    def _way(self, entry: Needed, fetch: str = "pull it") -> str:
        """Say what brings an entry here."""
        why = f"{entry.found.lacking}: " if entry.found.lacking else ""
        if entry.extraction is None:
            return f"{why}{fetch}, or extract it where the images are"
        relabel = " (only labels are new: no forward pass)" if entry.twins else ""
        return f"{why}run `penultimate extract {self.study.file or 'STUDY'}`{relabel}"

    def other_names(self) -> list[str]:
        """Say which entries bear other coordinates than the study asks for: only a key, or images, find those."""
        store, ways = self.survey.shelf.store, dict[str, list[str]]()
        for entry in self.entries:
            if entry.found.key is not None:
                apart = "; ".join(entry.wanted.apart(store.info(entry.found.key).coordinates))
                ways.setdefault(apart, []).append(entry.name)
        return [
            f"{few(names)}: cached as of {apart}: whoever has no images finds it by its key only: `penultimate "
            f"cache pin {self.study.file or 'STUDY'}`, and hand the lock on with the study"
            for apart, names in ways.items()
            if apart
        ]

    def require_some(self) -> None:
        """Refuse to go on where nothing of the study is here.

        Raises
        ------
        StudyError
            Saying what brings it here.
        """
        if not self.keys:
            ways = ", or ".join(dict.fromkeys(map(self._way, self.entries)))
            raise StudyError(f"nothing of {self.study.name} is cached here: {ways}")


def needs_of(study: Study | Path, *, notify: Callable[[str], None] = silent) -> Needs:
    """Look at this machine for the entries that a study needs.

    Parameters
    ----------
    study : Study or Path
        A path is read.
    notify : callable, optional
        Gets one line for each entry that is found damaged on the way.

    Returns
    -------
    Needs
        Nothing is raised for what is absent or in doubt.

    Raises
    ------
    StudyError
        With one line per mistake in the study, its data sets and backbones.
    """
    loaded = study if isinstance(study, Study) else load_study(study)
    return needs_in(loaded, survey(loaded, notify=notify))


def needs_in(study: Study, found: Survey) -> Needs:
    """Pick what a study needs out of what was found on this machine."""
    return Needs(study, found, tuple(_entries(study, found)))


def _entries(study: Study, found: Survey) -> Iterator[Needed]:
    """Yield every split that probes read: those that are listed, else train, test and whatever is here or pinned."""
    jobs = {
        (p.job.backbone.label, p.job.dataset, p.job.split.name): p.job
        for p in found.extraction
        if isinstance(p.job, ExtractJob)
    }
    for backbone in found.resolved.backbones:
        for table in study.dataset:
            rows = found.resolved.rows_of(table.name)
            for split in SPLITS:
                spot = (backbone.label, table.name, split)
                located = found.located.get(spot)
                if located is None or not (rows or split != "validation" or located != Located()):
                    continue
                wanted = wanted_coordinates(study, backbone, table.name, split)
                yield Needed(spot, located, wanted, jobs.get(spot))


def few(names: Sequence[str]) -> str:
    """Name the first few of many."""
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
