"""The report in Markdown, for a pull request or a lab book."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.rows import matrices
from stages.report.table import TransferTable
from stages.report.text import legend_lines
from stages.report.words import compared, correlated, problems, remarks, summary


def render_markdown(
    table: TransferTable,
    statistics: Mapping[str, Any],
    *,
    title: str = "Transfer study",
    limitations: Sequence[str] = (),
    details: Sequence[Mapping[str, Any]] = (),
    findings: Sequence[str] = (),
) -> str:
    r"""Write the findings, the score tables and what is missing as Markdown.

    Parameters
    ----------
    table, statistics, title, limitations, details
        As :func:`stages.report.page.render_report` has them.
    findings : sequence of str
        What other experiments found, a sentence each.

    Returns
    -------
    str
        Everything that came from a name is escaped, so that it reads as it is written.

    Examples
    --------
    >>> from stages.report.join import join_scores
    >>> from stages.report.statistics import statistics
    >>> empty = join_scores([])
    >>> render_markdown(empty, statistics(empty), title="a|b").splitlines()[0]
    '# a\\|b'
    """
    sections = [
        ("Which backbone", list(statistics["advice"])),
        ("Does better ImageNet accuracy mean better transfer?", correlated(table, statistics)),
        ("Regimes against each other", compared(statistics)),
        ("Other experiments", list(findings)),
        ("What this study is too small to show", list(limitations)),
        ("Read with care", remarks(table)),
    ]
    blocks = [f"# {_plain(title)}", _plain(summary(table))]
    blocks += [_section(name, lines) for name, lines in sections if lines]
    blocks += ["## Scores (test, %)", *_tables(table, statistics)]
    blocks += [_plain(line) for line in legend_lines(table)]
    blocks.append(_section("Missing cells and warnings", problems(table, details) or ["none"]))
    return "\n\n".join(blocks) + "\n"


def _tables(table: TransferTable, statistics: Mapping[str, Any]) -> list[str]:
    """One table per regime; the best of each data set in bold."""
    found = []
    for matrix in matrices(table, statistics):
        lines = [["backbone", *matrix.columns], ["---", *["---:"] * len(matrix.columns)]]
        for row in matrix.rows:
            bold = [f"**{c.text}**" if " best" in c.shade else _plain(c.text) for c in row.cells]
            lines.append([_plain(row.name), *bold])
        head = [[_plain(name) for name in lines[0]], *lines[1:]]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in head)
        found.append(f"### {matrix.title}\n\n{text}")
    return found


def _section(name: str, lines: Sequence[str]) -> str:
    """A heading and a list."""
    items = "\n".join(f"- {_plain(line)}" for line in lines)
    return f"## {name}\n\n{items}"


def _plain(text: str) -> str:
    """Text that Markdown and the HTML it may hold leave as it is."""
    escaped = re.sub(r"([\\`*_\[\]<>|~$#@&])", r"\\\1", text)
    return " ".join(escaped.split())
