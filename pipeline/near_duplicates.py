"""Images that stand twice in a study's data: found on cached features, confirmed on the pixels where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cached_tables import CachedTables
from pipeline.errors import StudyError
from pipeline.executors import worker_count
from pipeline.findings import strict_json
from pipeline.kept_figures import keep, safe_name
from pipeline.ledger import Ledger
from pipeline.progress import SILENT, Reporter
from stages.analysis.duplicates import ALONE_COSINE, CANDIDATE_COSINE, Pairs, near_duplicates, rows_without
from stages.analysis.same_picture import SAME_PICTURE, same_pictures
from stages.metrics import evaluate
from stages.records import SPLITS, SplitName
from stages.sheets import csv_bytes

MOST_LOOKED_AT = 10_000
"""Pairs whose pixels are compared, the nearest first: about 35 ms each on one core."""
SHOWN = 12
"""Pairs on the picture sheet."""


@dataclass(frozen=True)
class Side:
    """One split of one data set."""

    dataset: str
    split: SplitName

    @classmethod
    def read(cls, text: str) -> Side:
        """Read DATASET/SPLIT."""
        dataset, _, split = text.rpartition("/")
        for known in SPLITS:
            if split == known and dataset:
                return cls(dataset, known)
        raise StudyError(f"{text!r} is not DATASET/SPLIT, as in pets/train; splits are {', '.join(SPLITS)}")

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}"


@dataclass(frozen=True)
class WithoutDuplicates:
    """A probe's score with and without the test images that have a twin."""

    value: float
    value_without: float
    left_out: int
    n_test: int


@dataclass(frozen=True)
class DuplicatesOutcome:
    """What was found between two splits, or inside one."""

    backbone: str
    first: str
    second: str
    rows: tuple[int, int]
    cosine: float
    """The threshold on the features."""
    candidates: int
    """Pairs at or above it."""
    looked_at: int
    """Pairs whose pixels were compared; 0 where the images are not here."""
    similarity: float | None
    """The threshold on the pixels; None where features alone decide."""
    why_alone: str
    """Why they do; empty where pixels were compared."""
    duplicates: int
    """Pairs taken for duplicates."""
    images: tuple[int, int]
    """Different images of either side in such pairs; inside one split twice the same number."""
    probe: WithoutDuplicates | None
    """None where no probe was scored on these test images."""
    files: tuple[Path, ...]

    @property
    def line(self) -> str:
        """The finding in a sentence or two."""
        how = (
            f"cosine {self.cosine:g} and pixels {self.similarity:g}"
            if self.similarity is not None
            else f"cosine {self.cosine:g} alone, for {self.why_alone}"
        )
        inside = self.first == self.second
        where = f"inside {self.first}" if inside else f"{self.first} and {self.second}"
        images = f"{self.images[0]} of {self.rows[0]}"
        if not inside:
            images += f" and {self.images[1]} of {self.rows[1]}"
        text = (
            f"{where}: {self.duplicates} near-duplicate pairs ({images} images) by {how}, of {self.candidates} "
            "candidates"
        )
        if self.similarity is not None and self.looked_at < self.candidates:
            text += f", the nearest {self.looked_at} looked at"
        if self.probe is not None:
            text += (
                f"; the probe scores {100 * self.probe.value:.2f} %, without the {self.probe.left_out} test images "
                f"concerned {100 * self.probe.value_without:.2f} %"
            )
        return text


def find_duplicates(
    tables: CachedTables,
    first: Side,
    second: Side,
    *,
    backbone: str | None = None,
    cosine: float | None = None,
    pixels: bool = True,
    reporter: Reporter = SILENT,
) -> DuplicatesOutcome:
    """Look for near-duplicates between two cached splits, or inside one.

    Parameters
    ----------
    tables : CachedTables
    first, second : Side
        The same twice = inside one split, each pair once.
    backbone : str, optional
        Through whose features; default the study's first.
    cosine : float, optional
        Threshold on the features; default 0.7 where pixels decide after it, else 0.9.
    pixels : bool
        Whether to look at the images where they are on this machine.
    reporter : Reporter

    Returns
    -------
    DuplicatesOutcome
        Every pair in ``duplicates_*.csv`` below ``OUTPUT/analysis``, the nearest as a picture sheet.
    """
    name = tables.backbones([backbone] if backbone else ())[0]
    tables.datasets([first.dataset, second.dataset])
    inside = first == second
    one = tables.table(name, first.dataset, first.split)
    other = one if inside else tables.table(name, second.dataset, second.split)
    places = [tables.path_of(side.dataset, side.split) for side in (first, second)]
    looks = pixels and None not in places
    threshold = cosine if cosine is not None else CANDIDATE_COSINE if looks else ALONE_COSINE
    with reporter.bar("comparing features", "blocks") as progress:
        pairs = near_duplicates(
            one.features, None if inside else other.features, threshold=threshold, progress=progress
        )
    seen, similar, chosen = pairs, None, pairs
    if looks:
        seen = pairs.take(np.arange(len(pairs)) < MOST_LOOKED_AT)
        path_of = [_paths(p or {}, t.ids) for p, t in zip(places, (one, other), strict=True)]
        with reporter.bar("comparing pictures", "pairs") as progress:
            similar = same_pictures(seen, *path_of, workers=worker_count(None), progress=progress)
        chosen = seen.take(similar >= SAME_PICTURE)
    sides = [set(chosen.first.tolist()), set(chosen.second.tolist())]
    if inside:
        sides = [sides[0] | sides[1]] * 2
    outcome = DuplicatesOutcome(
        backbone=name,
        first=str(first),
        second=str(second),
        rows=(len(one.ids), len(other.ids)),
        cosine=threshold,
        candidates=pairs.found,
        looked_at=len(seen) if looks else 0,
        similarity=SAME_PICTURE if looks else None,
        why_alone="" if looks else "the images are not here" if pixels else "pixels were not to be compared",
        duplicates=chosen.found if not looks else len(chosen),
        images=(len(sides[0]), len(sides[1])),
        probe=_probe(tables, name, (first, second), chosen, (one.ids, other.ids)),
        files=(),
    )
    stem = f"duplicates_{_stem(first)}_{_stem(second)}"
    files = {
        "csv": _csv(seen, similar, one.ids, other.ids),
        "json": strict_json({**vars(outcome), "files": None}),
    }
    figure = _sheet(stem, outcome, chosen, path_of) if looks and len(chosen) else None
    return DuplicatesOutcome(**{**vars(outcome), "files": keep(tables.study.output, stem, files, figure)})


def _paths(places: Any, ids: tuple[str, ...]) -> Callable[[int], Path]:
    """Return where the image of a row lies."""
    return lambda row: places.get(ids[row], Path(ids[row]))


def _probe(
    tables: CachedTables,
    backbone: str,
    sides: tuple[Side, Side],
    pairs: Pairs,
    ids: Sequence[tuple[str, ...]],
) -> WithoutDuplicates | None:
    """Score the probe of the side that is a test split, the second where both are; None inside one split."""
    if sides[0] == sides[1] or "test" not in (sides[0].split, sides[1].split):
        return None
    which = 1 if sides[1].split == "test" else 0
    return _without(tables, backbone, sides[which], (pairs.first, pairs.second)[which], ids[which])


def _without(
    tables: CachedTables, backbone: str, side: Side, twins: NDArray[np.intp], ids: tuple[str, ...]
) -> WithoutDuplicates | None:
    """Score the probe's predictions on the test images without a twin; None where they are of other images."""
    job = tables.jobs[backbone, side.dataset]
    record = Ledger(tables.study.output).history().result_of(job.name, job.spec_digest)
    if record is None:
        return None
    arrays = record.arrays()
    scores = arrays.get("test_logits", arrays["test_scores"])
    labels, metric = arrays["labels"], record.columns["metric"]
    kept = rows_without(len(labels), twins)
    if tuple(arrays["ids"].tolist()) != ids or not len(kept):
        return None
    return WithoutDuplicates(
        value=evaluate(metric, labels, scores),
        value_without=evaluate(metric, labels[kept], scores[kept]),
        left_out=len(labels) - len(kept),
        n_test=len(labels),
    )


def _csv(pairs: Pairs, similar: Any, first: tuple[str, ...], second: tuple[str, ...]) -> bytes:
    """Write one row a pair, the nearest first."""
    rows = []
    for i, (a, b) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        value = None if similar is None else float(similar[i])
        same = "yes" if value is None or value >= SAME_PICTURE else "no"
        shown = None if value is None else round(value, 4)
        rows.append([first[a], second[b], round(float(pairs.cosine[i]), 6), shown, same])
    return csv_bytes(["first", "second", "cosine", "picture_similarity", "duplicate"], rows)


def _sheet(stem: str, outcome: DuplicatesOutcome, pairs: Pairs, path_of: list[Callable[[int], Path]]) -> Any:
    """Draw the nearest duplicates beside each other."""
    from stages.report.draw_pairs import PicturePair, pairs_figure

    shown = [
        PicturePair(path_of[0](int(a)), path_of[1](int(b)), f"{cosine:.3f}")
        for a, b, cosine in zip(pairs.first[:SHOWN], pairs.second[:SHOWN], pairs.cosine[:SHOWN], strict=True)
    ]
    title = f"Near-duplicates: {outcome.first}, {outcome.second}"
    caption = f"{outcome.line}. The nearest {len(shown)} pairs with their cosine ({outcome.backbone})."
    return pairs_figure(stem, title, caption, shown)


def _stem(side: Side) -> str:
    """Return a side as part of a file's name."""
    return f"{safe_name(side.dataset)}-{side.split}"
