"""Every file of a finished study, as bytes in one mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from stages.report.draw_experiments import ExtraFigure
from stages.report.draw_fits import ProbePath, TrainingCurve
from stages.report.figures import render_figures
from stages.report.files import scores_csv, scores_parquet, statistics_json
from stages.report.markdown import render_markdown
from stages.report.page import render_report
from stages.report.table import TransferTable


def table_files(table: TransferTable, statistics: Mapping[str, Any]) -> dict[str, bytes]:
    """Return scores.csv and statistics.json, which need no library of the extra ``report``."""
    return {"scores.csv": scores_csv(table), "statistics.json": statistics_json(statistics)}


def report_files(
    table: TransferTable,
    statistics: Mapping[str, Any],
    *,
    title: str = "Transfer study",
    limitations: Sequence[str] = (),
    details: Sequence[Mapping[str, Any]] = (),
    methods: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    paths: Sequence[ProbePath] = (),
    curves: Sequence[TrainingCurve] = (),
    state_of_the_art: Mapping[str, float] = MappingProxyType({}),
    extra: Sequence[ExtraFigure] = (),
    findings: Sequence[str] = (),
) -> dict[str, bytes]:
    """Return report.html, the scores, the statistics and the figures by their names in the output folder.

    Parameters
    ----------
    table, statistics, title, limitations, details, methods, provenance
        As :func:`stages.report.page.render_report` has them.
    paths, curves, state_of_the_art
        As :func:`stages.report.figures.render_figures` has them.
    extra : sequence of ExtraFigure
        Figures of other experiments, shown behind the report's own.
    findings : sequence of str
        What those experiments found, a sentence each.

    Returns
    -------
    dict of str to bytes
        "report.html" first, then "report.md", "figures/NAME.pdf" and ".png" last.

    Raises
    ------
    MissingExtraError
        A library of the extra ``report`` is not installed.
    """
    figures = render_figures(table, statistics, paths=paths, curves=curves, state_of_the_art=state_of_the_art)
    for drawn in extra:
        figures |= {f"{drawn.stem}.pdf": drawn.pdf, f"{drawn.stem}.png": drawn.png}
    page = render_report(
        table,
        statistics,
        title=title,
        limitations=limitations,
        details=details,
        methods=methods,
        provenance=provenance,
        figures=[name for name in figures if name.endswith(".pdf")],
        pictures=figures,
        captions={drawn.stem: (drawn.title, drawn.caption) for drawn in extra},
    )
    return {
        "report.html": page.encode(),
        "report.md": render_markdown(
            table, statistics, title=title, limitations=limitations, details=details, findings=findings
        ).encode(),
        **table_files(table, statistics),
        "scores.parquet": scores_parquet(table),
        **{f"figures/{name}": content for name, content in figures.items()},
    }
