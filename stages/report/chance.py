"""Scores that guessing would have reached too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES

LEVEL = 0.05


def not_above_chance(table: TransferTable) -> Iterator[str]:
    """Name the scores that are not above chance, a line for each data set and regime.

    A score is above chance where as many right answers would come of guessing among the K classes in fewer than
    one of 20 tests (one-sided binomial; mean per-class accuracy is taken as if its classes were of one size).
    Only data sets of one label an image whose class counts are known are looked at.
    """
    from scipy.stats import binom

    found: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    scored = table.cells[table.cells["value"].notna() & table.cells["n_test"].notna()]
    for cell in scored.to_dict("records"):
        classes = len(table.test_counts.get(cell["dataset"], ()))
        if classes < 2 or cell["metric"] == "map_11_point":
            continue
        value, n = float(cell["value"]), int(cell["n_test"])
        if binom.sf(round(value * n) - 1, n, 1 / classes) > LEVEL:
            place = cell["dataset"], REGIME_NAMES[cell["regime"]], classes
            found[place].append(f"{cell['backbone']} ({100 * value:.1f} % of {n})")
    for (dataset, regime, classes), names in found.items():
        chance = f"1 of {classes} classes = {100 / classes:.1f} %"
        yield f"{dataset}, {regime}: not above chance ({chance}): {', '.join(names)}"
