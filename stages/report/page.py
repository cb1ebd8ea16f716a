"""report.html: one file that works offline, with its style, its script and its plots inside.

The page allows no script but its own, by hash, and no connection at all (Content-Security-Policy);
everything that came from a name, a file or a result is escaped by the template engine.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stages.errors import MissingExtraError
from stages.report.captions import CAPTIONS
from stages.report.dictionary import COLUMNS, DICTIONARY, WORDS
from stages.report.overview import CORRELATION_HEADS, choices, mean_correlations, single_correlations
from stages.report.panels import dataset_panels, mean_panels
from stages.report.rows import comparison_rows, filled, matrices, readable, score_rows
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES, legend_lines
from stages.report.words import compared, correlated, problems, remarks, summary

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent
_SECTIONS = (
    ("answer", "In short"),
    ("transfer", "Transfer"),
    ("scores", "Scores"),
    ("datasets", "Data sets"),
    ("regimes", "Regimes"),
    ("figures", "Figures"),
    ("cells", "Every score"),
    ("problems", "Missing and warnings"),
    ("method", "Method"),
    ("provenance", "Provenance"),
)


def render_report(
    table: TransferTable,
    statistics: Mapping[str, Any],
    *,
    title: str = "Transfer study",
    limitations: Sequence[str] = (),
    details: Sequence[Mapping[str, Any]] = (),
    methods: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    figures: Sequence[str] = (),
    pictures: Mapping[str, bytes] = MappingProxyType({}),
    captions: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> str:
    """Write the report of a joined table.

    Parameters
    ----------
    table : TransferTable
    statistics : mapping
        What :func:`stages.report.statistics.statistics` made of it.
    title : str
        The study's name.
    limitations : sequence of str
        What this study is too small to show, one sentence each.
    details : sequence of mapping
        What is known of a cell beyond its score: "backbone" (label), "dataset", "regime", perhaps
        "seed", and any other key (certificate, cache key, seconds, warnings ...) with a value to show.
    methods : mapping of str to str, optional
        How the scores were come by, a name and a sentence each: shown before the statistics' definitions.
    provenance : mapping, optional
        Versions, study file, hashes, machine: shown as given.
    figures : sequence of str
        File names in the folder ``figures`` beside the page, to be linked.
    pictures : mapping of str to bytes, optional
        PNG files by name; those that the page does not draw itself are shown in it.
    captions : mapping of str to (title, caption), optional
        Of pictures that the page has no words for, by the name without suffix.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    MissingExtraError
        If jinja2 is not installed.
    """
    template = _template()
    from markupsafe import Markup

    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    shown = {**_contents(table, statistics, details), "pictures": _pictures(pictures, captions)}
    empty = {i for i, key in (("regimes", "comparisons"), ("figures", "pictures")) if not shown[key]}
    sections = [(i, name) for i, name in _SECTIONS if i not in empty]
    return template.render(
        **shown,
        title=title,
        sections=sections,
        limitations=list(limitations),
        provenance=[(key, readable(value)) for key, value in (provenance or {}).items()],
        version=_version(provenance or {}),
        methods=list((methods or {}).items()),
        files=list(figures),
        style=Markup(style),  # noqa: S704  (our own file)
        script=Markup(script),  # noqa: S704  (our own file)
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


@functools.cache
def _template() -> Template:
    """The page's template, compiled once."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    engine = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return engine.get_template("report.html.j2")


def _contents(
    table: TransferTable, statistics: Mapping[str, Any], details: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the template shows of the table and its statistics."""
    means = mean_panels(table, statistics)
    single = {regime: dataset_panels(table, statistics, regime) for regime in table.regimes}
    columns, rows = filled(score_rows(table, details))
    every = [*means, *(panel for panels in single.values() for panel in panels)]
    return {
        "summary": summary(table),
        "advice": statistics["advice"],
        "correlated": correlated(table, statistics),
        "compared": compared(statistics),
        "choices": choices(table, statistics),
        "correlation_heads": CORRELATION_HEADS,
        "correlations": mean_correlations(statistics),
        "single_correlations": single_correlations(table, statistics),
        "words": WORDS,
        "meanings": [("scores.csv, scores.parquet", COLUMNS), ("statistics.json", DICTIONARY)],
        "remarks": remarks(table),
        "backbones": table.backbones,
        "datasets": table.datasets,
        "mean_panels": means,
        "clips": list({panel.width: panel for panel in every}.values()),
        "matrices": matrices(table, statistics),
        "legend": "; ".join(legend_lines(table)),
        "dataset_panels": [(REGIME_NAMES[regime], panels) for regime, panels in single.items() if panels],
        "tested": bool(statistics["pairs"]),
        "comparisons": comparison_rows(table, statistics),
        "regimes": [(regime, REGIME_NAMES[regime]) for regime in table.regimes],
        "columns": columns,
        "rows": rows,
        "problems": problems(table, details),
        "unfinished": any(score.status in ("failed", "missing") for score in table.scores),
        "ringed": any(part["correlation"]["ties_with_best"] for part in statistics["regimes"].values()),
        "definitions": [*_rules(statistics), *statistics["definitions"].items()],
    }


def _pictures(
    files: Mapping[str, bytes], captions: Mapping[str, tuple[str, str]]
) -> list[tuple[str, str, str, str]]:
    """Title, caption, name of the PDF and data address of each figure that is shown as a picture."""
    found = []
    for stem, (title, caption) in {**CAPTIONS, **captions}.items():
        if f"{stem}.png" in files:
            data = base64.b64encode(files[f"{stem}.png"]).decode()
            found.append((title, caption, f"{stem}.pdf", f"data:image/png;base64,{data}"))
    return found


def _version(provenance: Mapping[str, Any]) -> str:
    """The tool's version, where it is known."""
    versions = provenance.get("versions")
    return str(versions.get("penultimate", "")) if isinstance(versions, Mapping) else ""


def _rules(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How missing cells were handled, per regime."""
    return [(f"means, {REGIME_NAMES[r]}", part["rule"]) for r, part in statistics["regimes"].items()]


def _hash(text: str) -> str:
    """The text's hash as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
