"""t-SNE maps of a study's cached features, backbones side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cached_tables import CachedTables
from pipeline.kept_figures import keep, safe_name
from stages.analysis.tsne import Maps, tsne_maps
from stages.records import SplitName
from stages.sheets import csv_bytes


@dataclass(frozen=True)
class TsneOutcome:
    """Maps that were drawn."""

    maps: Maps
    caption: str
    files: tuple[Path, ...]


def draw_tsne(
    tables: CachedTables,
    dataset: str,
    *,
    split: SplitName = "test",
    backbones: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    count: int = 10,
    perplexity: float = 30.0,
    seed: int = 0,
) -> TsneOutcome:
    """Lay the features of one split out in the plane, one map for each backbone.

    Parameters
    ----------
    tables : CachedTables
    dataset, split : str
    backbones : sequence of str
        Labels, in the order of the maps; default all of the study's.
    classes, count, perplexity, seed
        As :func:`stages.analysis.tsne.tsne_maps` has them.

    Returns
    -------
    TsneOutcome
        A figure and a csv (entry, id, class, x, y) lie in ``OUTPUT/analysis``.
    """
    from stages.report.draw_maps import maps_figure

    tables.datasets([dataset])
    features = {name: tables.table(name, dataset, split) for name in tables.backbones(backbones)}
    maps = tsne_maps(features, classes, count=count, perplexity=perplexity, seed=seed)
    chosen = "chosen" if classes is not None else f"drawn with seed {seed}"
    caption = (
        f"t-SNE of the penultimate features of {dataset} ({split}, {len(maps.ids)} images of "
        f"{len(maps.class_names)} classes, {chosen}): {maps.method}, perplexity {perplexity:g}, seed {seed}. Only "
        "who lies near whom means something, not distances between groups nor the size of one."
    )
    points = [one.coordinates for one in maps.maps]
    titles = [f"{one.entry} (KL {one.divergence:.2f})" for one in maps.maps]
    stem = f"tsne_{safe_name(dataset)}_{split}"
    figure = maps_figure(stem, f"t-SNE of {dataset}", caption, points, titles, maps.labels, maps.class_names)
    files = keep(tables.study.output, stem, {"csv": _csv(maps)}, figure)
    return TsneOutcome(maps, caption, files)


def _csv(maps: Maps) -> bytes:
    """Write one row for each backbone and image."""
    columns = maps.table()
    return csv_bytes(list(columns), zip(*columns.values(), strict=True))
