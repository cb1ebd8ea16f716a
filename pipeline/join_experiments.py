"""The join of all other experiments of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.findings import NOTHING, Findings, PartRow
from pipeline.join_convergence import convergence_findings
from pipeline.join_few_examples import few_examples_findings
from pipeline.join_read_outs import read_out_findings
from pipeline.join_regularisation import regularisation_findings
from pipeline.plan import Plan

if TYPE_CHECKING:
    from stages.report import TransferTable


def experiment_findings(rows: Sequence[PartRow], plan: Plan, table: TransferTable, *, draw: bool) -> Findings:
    """Return files, figures and sentences of every experiment that the study has.

    Parameters
    ----------
    rows : sequence of PartRow
        Of all experiments.
    plan : Plan
    table : TransferTable
        The study's own scores.
    draw : bool
        Whether figures can be drawn here.
    """
    study, found = plan.study, NOTHING
    if study.few_examples is not None:
        few = [row for row in rows if row.part.experiment == "few_examples"]
        found |= few_examples_findings(few, study.few_examples, draw=draw)
    if study.convergence is not None:
        lengths = [row for row in rows if row.part.experiment == "convergence"]
        found |= convergence_findings(lengths, study, draw=draw)
    if study.regularisation is not None:
        found |= regularisation_findings(study.regularisation, table, draw=draw)
    return found | read_out_findings(plan, table, draw=draw)
