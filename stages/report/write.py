"""Every file of a finished study, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.atomic import make_folder, write_file
from stages.report.draw_fits import ProbePath, TrainingCurve
from stages.report.figures import render_figures
from stages.report.files import scores_csv, scores_parquet, statistics_json
from stages.report.page import render_report
from stages.report.table import TransferTable


def write_report(
    folder: Path,
    table: TransferTable,
    statistics: Mapping[str, Any],
    *,
    title: str = "Transfer study",
    limitations: Sequence[str] = (),
    details: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
    paths: Sequence[ProbePath] = (),
    curves: Sequence[TrainingCurve] = (),
    write: Callable[[Path, bytes], None] = write_file,
) -> Path:
    """Write scores.csv, scores.parquet, statistics.json, figures/ and report.html into a folder.

    Parameters
    ----------
    folder : Path
        Created where it does not exist.
    table, statistics, title, limitations, details, provenance
        As :func:`stages.report.page.render_report` has them.
    paths, curves
        As :func:`stages.report.figures.render_figures` has them.
    write : callable
        Puts bytes in place; the default leaves either the old file or the new one, whole.

    Returns
    -------
    Path
        Of report.html, which is written last.

    Raises
    ------
    MissingExtraError
        If a library of the extra ``report`` is not installed; scores.csv and statistics.json are
        written all the same, since they need none.
    """
    make_folder(folder)
    write(folder / "scores.csv", scores_csv(table))
    write(folder / "statistics.json", statistics_json(statistics))
    write(folder / "scores.parquet", scores_parquet(table))
    figures = render_figures(table, statistics, paths=paths, curves=curves)
    make_folder(folder / "figures")
    for name, content in figures.items():
        write(folder / "figures" / name, content)
    page = render_report(
        table,
        statistics,
        title=title,
        limitations=limitations,
        details=details,
        provenance=provenance,
        figures=[name for name in figures if name.endswith(".pdf")],
    )
    write(folder / "report.html", page.encode())
    return folder / "report.html"
