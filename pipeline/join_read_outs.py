"""The join of the cheap read-outs: how well each would have chosen among the backbones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.findings import NOTHING, Findings, strict_json
from pipeline.jobs import ProbeJob
from pipeline.plan import Plan
from pipeline.read_outs import current_record, scores_of
from stages.analysis.ranking import Ranking, rank_agreement, score_title
from stages.sheets import csv_bytes

if TYPE_CHECKING:
    from stages.report import TransferTable

Scores = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""Data set, score, backbone to value."""
PROBE = "linear_probe"
TOP1 = "imagenet_top1"
_TARGETS = {
    "fine_tune": "fine-tuning",
    "linear_probe": "the linear probe",
    "from_scratch": "training from scratch",
}


def read_out_records(plan: Plan) -> dict[tuple[str, str], Any]:
    """Return the current read-outs by backbone and data set."""
    jobs = [p.job for p in plan.of("probe") if p.part is None and isinstance(p.job, ProbeJob)]
    found = {(job.backbone, job.dataset): current_record(plan.history, job) for job in jobs}
    return {cell: record for cell, record in found.items() if record is not None}


def read_out_findings(plan: Plan, table: TransferTable, *, draw: bool) -> Findings:
    """Compare every score with the log odds that the backbones reached.

    Parameters
    ----------
    plan : Plan
    table : TransferTable
        The joined scores.
    draw : bool
        Whether figures can be drawn here.
    """
    records = read_out_records(plan)
    if not records:
        return NOTHING
    scores: dict[str, dict[str, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for (backbone, dataset), record in records.items():
        for name, value in scores_of(record).items():
            scores[dataset][name][backbone] = value
    rankings = _rankings(scores, table)
    lines = _sentences(rankings)
    files = {
        "read_outs.csv": _scores_csv(scores),
        "rankings.csv": _rankings_csv(rankings),
        "rankings.json": strict_json([asdict(ranking) for ranking in rankings]),
    }
    return Findings(files, _figures(rankings, lines) if draw else (), tuple(lines))


def _rankings(scores: Scores, table: TransferTable) -> list[Ranking]:
    """Judge every score on every data set by every regime; the probe and ImageNet top-1 are judged beside them."""
    found = []
    for target in [t for t in _TARGETS if t in table.regimes]:
        odds = table.matrix(target)
        for dataset in scores:
            wanted = {str(name): float(value) for name, value in odds[dataset].items()}
            known: dict[str, Mapping[str, float | None]] = {**scores[dataset], TOP1: table.imagenet_top1}
            if target != PROBE and PROBE in table.regimes:
                probe = table.matrix("linear_probe")[dataset]
                known[PROBE] = {str(name): float(value) for name, value in probe.items()}
            for score, values in known.items():
                ranking = rank_agreement(values, wanted, dataset=dataset, score=score, target=target)
                if len(ranking.backbones) > 1:
                    found.append(ranking)
    return found


def _sentences(rankings: Sequence[Ranking]) -> list[str]:
    """Say of each score what following it would have cost, the best first."""
    lines = []
    for target, words in _TARGETS.items():
        own = _comparable(rankings, target)
        every = len({ranking.dataset for found in own.values() for ranking in found})
        # Means over other data sets are no rivals of those over all, whatever their size.
        means = sorted(
            (len(found) < every, float(np.mean([r.regret for r in found])), name)
            for name, found in own.items()
        )
        told = [
            f"{score_title(name)} {mean:.3f}{_tau(own[name])}"
            + (f" (on {len(own[name])} of {every} data sets alone)" if fewer else "")
            for fewer, mean, name in means
        ]
        if told:
            lines.append(f"choosing a backbone for {words}, mean regret in log odds: {', '.join(told)}")
    return lines


def _comparable(rankings: Sequence[Ranking], target: str) -> dict[str, list[Ranking]]:
    """Return of each score the rankings of all the backbones that any score ranks on that data set.

    Among fewer backbones there is less to lose.
    """
    found = [ranking for ranking in rankings if ranking.target == target and ranking.regret is not None]
    most: dict[str, int] = defaultdict(int)
    for ranking in found:
        most[ranking.dataset] = max(most[ranking.dataset], len(ranking.backbones))
    own: dict[str, list[Ranking]] = defaultdict(list)
    for ranking in found:
        if len(ranking.backbones) == most[ranking.dataset]:
            own[ranking.score].append(ranking)
    return own


def _tau(rankings: Sequence[Ranking]) -> str:
    """Return the mean rank correlation in brackets, nothing where there is none."""
    taus = [ranking.weighted_kendall for ranking in rankings if ranking.weighted_kendall is not None]
    return f" (weighted tau {np.mean(taus):.2f})" if taus else ""


def _scores_csv(scores: Scores) -> bytes:
    """Write one row for each backbone, data set and score."""
    rows = [
        [backbone, dataset, name, "" if value is None else value]
        for dataset, named in scores.items()
        for name, values in named.items()
        for backbone, value in values.items()
    ]
    return csv_bytes(["backbone", "dataset", "score", "value"], rows)


def _rankings_csv(rankings: Sequence[Ranking]) -> bytes:
    """Write one row for each data set, score and regime predicted."""
    names = ["dataset", "score", "target", "kendall", "weighted_kendall", "spearman", "regret", "reason"]
    rows = []
    for ranking in rankings:
        row = [getattr(ranking, name) for name in names]
        row += [len(ranking.backbones), "|".join(ranking.chosen), "|".join(ranking.best)]
        rows.append(["" if value is None else value for value in row])
    return csv_bytes([*names, "backbones", "chosen", "best"], rows)


def _figures(rankings: Sequence[Ranking], lines: Sequence[str]) -> tuple[Any, ...]:
    """Draw the regret of every score."""
    from stages.report.draw_choosing import Regrets, regret_figure

    panels = []
    for target, words in _TARGETS.items():
        points = {
            score_title(name): tuple(ranking.regret for ranking in found if ranking.regret is not None)
            for name, found in _comparable(rankings, target).items()
        }
        if points:
            panels.append(Regrets(f"chosen for {words}", points))
    caption = (
        "What it would have cost to take the backbone that a cheap score likes best: log odds of the best backbone "
        "minus those of the chosen one, a point for each data set, the bar their mean; 0 is the best choice. The "
        "read-outs saw the test images, the transferability scores (LogME, H-scores) the training images alone. "
        f"{'. '.join(lines)}."
    )
    figure = regret_figure("choosing", "Choosing by cheap scores", caption, panels)
    return (figure,) if figure else ()
