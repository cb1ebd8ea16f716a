"""What lies behind the scores: predictions, selection paths and training curves, read from the ledger.

The tests of every two models are the slow part of a join; what they found is remembered beside the results
by the content that it was found in, so that a page is never waited for because of them.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import sha256_of
from cache.atomic import write_file
from pipeline.errors import PipelineError, StudyError
from pipeline.ledger import Record
from pipeline.progress import Reporter
from stages.errors import JoinError, StageError
from stages.records import CurvePoint, Metric, Score, SelectionRow

if TYPE_CHECKING:
    from stages.report.draw_fits import ProbePath, TrainingCurve
    from stages.report.pairwise import PairTest
    from stages.report.predictions import Predictions

Rows = Sequence[tuple[Score, Record | None]]
"""A row of scores.csv and the record that it comes from."""

PAIR_RECIPE = 2
"""Grows when the same predictions would be tested otherwise."""
MEMORY = "pairs.json"


@contextmanager
def readable(record: Record) -> Iterator[None]:
    """Turn what goes wrong inside, over a result that is not as ours are, into an error that names the file.

    Raises
    ------
    JoinError
    """
    try:
        yield
    except (StageError, PipelineError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise JoinError(
            f"{record.path}: not a result of this tool ({what}); move it away to run the job again"
        ) from error


def label(score: Score) -> str:
    """Return the backbone's label."""
    return f"{score.backbone}@{score.variant}" if score.variant else score.backbone


def pair_tests(
    rows: Rows, metrics: Mapping[str, Metric], output: Path, reporter: Reporter
) -> tuple[list[PairTest], list[str]]:
    """Test every two models of every data set and regime; remembered ones are not tested again.

    Parameters
    ----------
    rows : sequence of (Score, Record)
    metrics : mapping of str to Metric
        Of each data set.
    output : Path
        The study's folder, where the tests are remembered.
    reporter : Reporter

    Returns
    -------
    list of PairTest and list of str
        And one line for each result whose per-example scores are lost: it is compared with nobody.
    """
    from stages.report.pairwise import PairTest, test_pairs

    groups: dict[tuple[str, str], list[tuple[Score, Record]]] = defaultdict(list)
    for score, record in rows:
        if record is not None and score.status == "complete":
            groups[score.dataset, score.regime].append((score, record))
    before, now, lost = _recall(output), {}, []
    for (dataset, regime), members in groups.items():
        place = [PAIR_RECIPE, dataset, regime, metrics[dataset]]
        key = sha256_of([*place, [_identity(*member) for member in members]])
        if key not in before:
            predictions, gone = _all_predictions(members)
            lost += gone
            there = {one.source for one in predictions}
            key = sha256_of([*place, [_identity(*m) for m in members if m[0].source in there]])
        if key not in before:
            with reporter.bar(f"comparing backbones on {dataset}", "pairs") as progress:
                before[key] = [asdict(t) for t in test_pairs(predictions, metrics, progress=progress)]
        now[key] = before[key]
    write_file(output / MEMORY, json.dumps({"digest": sha256_of(now), "tests": now}).encode())
    return [PairTest(**fields) for tests in now.values() for fields in tests], lost


def _identity(score: Score, record: Record) -> list[Any]:
    """Return which model was tested, and on which predictions: a file name comes back with other content."""
    return [label(score), score.seed, score.source, record.files.get(".npz")]


def _all_predictions(members: Sequence[tuple[Score, Record]]) -> tuple[list[Predictions], list[str]]:
    """Read what each model predicted; of those that are lost, a line."""
    found, lost = [], []
    for score, record in members:
        try:
            found.append(_predictions(score, record))
        except StudyError as error:
            lost.append(f"{error}; until then this model is compared with no other")
    return found, lost


def _predictions(score: Score, record: Record) -> Predictions:
    """Read what a model predicted for the test images."""
    from stages.report.predictions import Predictions

    with readable(record):
        arrays = record.arrays()
        return Predictions(
            backbone=label(score),
            dataset=score.dataset,
            regime=score.regime,
            scores=arrays["test_logits"] if "test_logits" in arrays else arrays["test_scores"],
            labels=arrays["labels"],
            ids=tuple(arrays["ids"].tolist()),
            seed=score.seed,
            source=score.source,
        )


def _recall(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the remembered tests; a file that cannot be read, or was edited, is as good as none."""
    try:
        remembered = json.loads((output / MEMORY).read_text(encoding="utf-8"))
        if remembered["digest"] != sha256_of(remembered["tests"]):
            return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return dict(remembered["tests"])


def probe_paths(rows: Rows) -> list[ProbePath]:
    """Return the selection of every probe."""
    from stages.report.draw_fits import ProbePath

    found = []
    for score, record in rows:
        if record is not None and score.regime == "linear_probe" and score.status == "complete":
            with readable(record):
                result = record.result
                selection = tuple(SelectionRow(**row) for row in result["selection"])
                chosen = float(result["l2_lambda"])
                found.append(ProbePath(label(score), score.dataset, selection, chosen))
    return found


def training_curves(rows: Rows) -> list[TrainingCurve]:
    """Return the loss of every final training."""
    from stages.report.draw_fits import TrainingCurve

    found = []
    for score, record in rows:
        if record is not None and score.regime != "linear_probe" and score.status == "complete":
            with readable(record):
                points = tuple(CurvePoint(**point) for point in record.result["curve"])
                found.append(TrainingCurve(label(score), score.dataset, score.regime, points))
    return found
