"""Score rows -> one table in which nothing contradicts anything and nothing is silently dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from stages.records import REGIMES, Metric, Regime, Score
from stages.report.chance import not_above_chance
from stages.report.checks import (
    Cell,
    checked_cell,
    checked_row,
    merged,
    metrics_of,
    one_word,
    refuse_infinite,
    refuse_lookalikes,
    refuse_mixed_seeds,
)
from stages.report.table import TransferTable, label_of

Order = tuple[tuple[str, ...], tuple[str, ...], tuple[Regime, ...]]
"""Backbones, data sets and regimes, each as the table lists them."""


def join_scores(
    scores: Iterable[Score],
    *,
    expected: Iterable[Cell] | None = None,
    test_counts: Mapping[str, Sequence[int]] | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> TransferTable:
    """Join score rows of one or several sources into one table.

    Parameters
    ----------
    scores : iterable of Score
        Rows in any order, from this tool's results, from a csv, or both.
    expected : iterable of (backbone label, dataset, regime, seed), optional
        The cells that the study planned; those without a row become rows with status "missing". Without
        it, every combination of what was seen counts as planned, once.
    test_counts : mapping of str to sequence of int, optional
        Per data set, the test rows (multi-label: positives) of each class: the clamping of mean
        per-class accuracy and of mAP is defined by them.
    metrics : mapping of str to {"top_1", "mean_per_class", "map_11_point"}, optional
        Of each data set, for those that have no row yet; a row's own word must agree.

    Returns
    -------
    TransferTable

    Raises
    ------
    JoinError
        If a row makes no sense (a value that is no fraction, a status that contradicts the value), or if
        two rows contradict each other; the message names the sources of both.

    Notes
    -----
    Two rows of one cell that say the same collapse into the first. Of a complete and an incomplete row
    of one cell the complete one stays: it is a later attempt.

    Examples
    --------
    >>> from stages.records import Score
    >>> row = Score(study="s", backbone="resnet50", weights="pretrained", variant="", dataset="pets",
    ...             regime="linear_probe", metric="mean_per_class", value=0.92, n_train=3680, n_test=3669,
    ...             seed=None, steps=None, imagenet_top1=0.77, l2_lambda=1.0, learning_rate=None,
    ...             weight_decay=None, status="complete", source="a.json", job="probe-resnet50-pets")
    >>> table = join_scores([row, row], expected=[("resnet50", "dtd", "linear_probe", None)])
    >>> table.cells[["dataset", "value", "status"]].to_dict("records")  # doctest: +NORMALIZE_WHITESPACE
    [{'dataset': 'dtd', 'value': nan, 'status': 'missing'},
     {'dataset': 'pets', 'value': 0.92, 'status': 'complete'}]
    """
    rows = [checked_row(score) for score in scores]
    refuse_lookalikes(rows)
    planned = None if expected is None else [checked_cell(cell) for cell in expected]
    cells: dict[Cell, Score] = {}
    for row in rows:
        cell = (label_of(row), row.dataset, row.regime, row.seed)
        cells[cell] = merged(cells[cell], row) if cell in cells else row
    refuse_mixed_seeds(list(cells.values()))
    order = _orders(planned or [], rows)
    known = metrics_of(rows, metrics or {})
    kin = _Kin(rows, one_word(rows, "weights"), one_word(rows, "imagenet_top1"), known)
    for cell in _product(order, rows) if planned is None else planned:
        cells.setdefault(cell, kin.missing(cell))
    table = TransferTable(
        scores=tuple(sorted(cells.values(), key=lambda s: _position(s, order))),
        backbones=order[0],
        datasets=order[1],
        regimes=order[2],
        metrics=MappingProxyType({name: known.get(name, "top_1") for name in order[1]}),
        imagenet_top1=MappingProxyType({name: _number(kin.top1.get(name)) for name in order[0]}),
        test_counts=MappingProxyType({d: tuple(int(c) for c in n) for d, n in (test_counts or {}).items()}),
    )
    refuse_infinite(table)
    return replace(table, notes=tuple(_notes(table, known)))


def _notes(table: TransferTable, known: Mapping[str, Metric]) -> Iterator[str]:
    """What a reader of the joined table must know about it."""
    for name in table.backbones:
        if table.imagenet_top1[name] is None:
            yield f"{name}: its ImageNet top-1 is unknown, so it is left out of every correlation"
    for name in table.datasets:
        if name not in known:
            yield f"{name}: not scored yet and its metric is not stated; listed as top_1"
    yield from _unequal_tests(table)
    yield from not_above_chance(table)
    cells = table.cells
    for cell in cells[cells["clamped"]].itertuples():
        if cell.metric != "top_1" and cell.dataset not in table.test_counts:
            yield f"{cell.dataset}: class counts are unknown, so log odds are clamped at 1 / (2 n_test + 2)"


def _unequal_tests(table: TransferTable) -> Iterator[str]:
    """Data sets whose rows were scored on test splits of different sizes: their scores are not of one thing."""
    for name in table.datasets:
        rows = [s for s in table.scores if s.dataset == name and s.value is not None and s.n_test is not None]
        sizes = dict(sorted({row.n_test: row for row in rows}.items(), key=lambda item: item[0] or 0))
        if len(sizes) > 1:
            told = ", ".join(f"{size} ({label_of(row)}, {row.source})" for size, row in sizes.items())
            yield f"{name}: test splits of different sizes are compared: {told}"


def _orders(planned: list[Cell], rows: list[Score]) -> Order:
    """Backbones and data sets in order of appearance, plan first; regimes in the fixed order."""
    seen = [(b, d, r) for b, d, r, _ in planned] + [(label_of(s), s.dataset, s.regime) for s in rows]
    regimes = {r for _, _, r in seen}
    return (
        tuple(dict.fromkeys(b for b, _, _ in seen)),
        tuple(dict.fromkeys(d for _, d, _ in seen)),
        tuple(r for r in REGIMES if r in regimes),
    )


def _product(order: Order, rows: list[Score]) -> list[Cell]:
    """The combinations of what was seen that have no row at all."""
    done = {(label_of(s), s.dataset, s.regime) for s in rows}
    return [(b, d, r, None) for b in order[0] for d in order[1] for r in order[2] if (b, d, r) not in done]


@dataclass(frozen=True)
class _Kin:
    """What the rows that exist say about a cell that has none."""

    rows: list[Score]
    weights: Mapping[str, object]
    top1: Mapping[str, object]
    metrics: Mapping[str, Metric]

    def missing(self, cell: Cell) -> Score:
        """The row of a planned cell without a result."""
        label, dataset, regime, seed = cell
        kin = next((row for row in self.rows if label_of(row) == label), None)
        return Score(
            study=(kin or self.rows[0]).study if self.rows else "",
            backbone=kin.backbone if kin else label,
            weights=str(self.weights.get(label, "")),
            variant=kin.variant if kin else "",
            dataset=dataset,
            regime=regime,
            metric=self.metrics.get(dataset, "top_1"),
            value=None,
            n_train=None,
            n_test=None,
            seed=seed,
            steps=None,
            imagenet_top1=_number(self.top1.get(label)),
            l2_lambda=None,
            learning_rate=None,
            weight_decay=None,
            status="missing",
            source="",
            job="",
        )


def _number(value: object) -> float | None:
    """A float, or None."""
    return value if isinstance(value, float) else (float(value) if isinstance(value, int) else None)


def _position(row: Score, order: Order) -> tuple[int, int, int, int]:
    """Where a row stands in the table."""
    seed = -1 if row.seed is None else row.seed
    return order[2].index(row.regime), order[0].index(label_of(row)), order[1].index(row.dataset), seed
