"""How far a search for near-duplicates can be trusted: copies made on purpose and hidden among the images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cached_tables import CachedTables
from pipeline.errors import StudyError
from pipeline.executors import worker_count
from pipeline.near_duplicates import Side
from pipeline.progress import SILENT, Reporter
from stages.analysis.duplicates import CANDIDATE_COSINE, near_duplicates
from stages.analysis.made_pairs import Detection, MadeCopy, detection, made_copies
from stages.analysis.same_picture import SAME_PICTURE, same_pictures
from stages.records import Split


@dataclass(frozen=True)
class HiddenOutcome:
    """What a search found of the copies that were hidden."""

    backbone: str
    side: str
    seed: int
    cosine: float
    similarity: float
    candidates: Detection
    """By the features alone, at ``cosine``."""
    confirmed: Detection
    """Of those, by the pixels too."""

    @property
    def line(self) -> str:
        """The finding in a sentence."""
        by_change = ", ".join(f"{k} {100 * v:.0f} %" for k, v in self.confirmed.recall_by_change.items())
        copies = f"{self.confirmed.made} {'copy' if self.confirmed.made == 1 else 'copies'}"
        return (
            f"{self.side}: {copies} hidden (seed {self.seed}), {self.candidates.found} among the "
            f"{self.candidates.found + self.candidates.others} pairs at cosine {self.cosine:g}, "
            f"{self.confirmed.found} confirmed at {self.similarity:g}: recall {100 * self.confirmed.recall:.1f} % "
            f"({by_change}), precision at least {100 * self.confirmed.precision:.1f} %: "
            f"{self.confirmed.others} other pairs, which the set may hold twice itself"
        )


def hide_copies(
    tables: CachedTables,
    side: Side,
    count: int,
    *,
    seed: int = 0,
    backbone: str | None = None,
    cosine: float | None = None,
    reporter: Reporter = SILENT,
) -> HiddenOutcome:
    """Make copies of images of a split, hide them among it, and search.

    Parameters
    ----------
    tables : CachedTables
    side : Side
        Whose images are on this machine.
    count : int
        Copies: crops, rescaled, JPEG, mirrored in turn.
    seed : int
        Of which images and by how much.
    backbone : str, optional
        Default the study's first; its network runs over the copies.
    cosine : float, optional
        Threshold on the features; default 0.7.
    reporter : Reporter

    Returns
    -------
    HiddenOutcome

    Raises
    ------
    StudyError
        Fewer images than copies, or the images are not on this machine.
    """
    name = tables.backbones([backbone] if backbone else ())[0]
    table = tables.table(name, side.dataset, side.split)
    paths = _pictures(tables, name, side, count)
    threshold = CANDIDATE_COSINE if cosine is None else cosine
    with tempfile.TemporaryDirectory(prefix="penultimate-copies-") as folder:
        copies, files = _save(paths, count, seed, Path(folder))
        features = np.concatenate([table.features, _features(tables, name, files, reporter)])
        every = [*paths, *files]
        with reporter.bar("comparing features", "blocks") as progress:
            pairs = near_duplicates(features, threshold=threshold, progress=progress)
        with reporter.bar("comparing pictures", "pairs") as progress:
            similar = same_pictures(
                pairs, lambda row: every[row], workers=worker_count(None), progress=progress
            )
    confirmed = pairs.take(similar >= SAME_PICTURE)
    first = len(paths)
    found = (detection(which, copies, first) for which in (pairs, confirmed))
    return HiddenOutcome(name, str(side), seed, threshold, SAME_PICTURE, *found)


def check_hiding(
    tables: CachedTables, sides: Iterable[Side], count: int, *, backbone: str | None = None
) -> None:
    """Make sure that copies can be made of every side, before minutes are spent on the first.

    Raises
    ------
    StudyError
        As `hide_copies`.
    """
    name = tables.backbones([backbone] if backbone else ())[0]
    for side in sides:
        _pictures(tables, name, side, count)


def _pictures(tables: CachedTables, name: str, side: Side, count: int) -> list[Path]:
    """Return where the images lie that copies are made of, in the order of the rows."""
    ids = tables.table(name, side.dataset, side.split).ids
    if count > len(ids):
        raise StudyError(
            f"{side} has {len(ids)} images, --hide asks for copies of {count}: give at most {len(ids)}"
        )
    places = tables.path_of(side.dataset, side.split)
    if places is None:
        raise StudyError(f"{side}: its images are not on this machine, so no copies of them can be made")
    return [places[id_] for id_ in ids]


def _save(paths: list[Path], count: int, seed: int, folder: Path) -> tuple[list[MadeCopy], list[Path]]:
    """Write the copies as PNG, which changes nothing more."""
    copies, files = [], []
    for i, (copy, image) in enumerate(made_copies(paths, count, seed)):
        files.append(folder / f"{i}.png")
        image.save(files[-1])
        copies.append(copy)
    return copies, files


def _features(
    tables: CachedTables, name: str, files: list[Path], reporter: Reporter
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Run the backbone over the copies, as the study does over its images."""
    from stages.extract import extract_features

    (backbone,) = (b for b in tables.plan.resolved.backbones if b.label == name)
    split = Split("test", tuple(map(str, range(len(files)))), tuple(files), np.zeros(len(files), np.int64))
    settings = tables.study.extract
    with reporter.bar("features of the copies", "images") as progress:
        batches = extract_features(
            backbone, split, precision=settings.precision, device=settings.device, progress=progress
        )
        return np.concatenate([batch.features for batch in batches])
