"""Planning of the paper's other experiments, behind the study's own jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cache import Store
from pipeline.config import Study
from pipeline.jobs import Planned
from pipeline.ledger import History
from pipeline.plan_convergence import plan_convergence
from pipeline.plan_few_examples import plan_few_examples
from pipeline.resolve import Resolved


def plan_experiments(
    study: Study, resolved: Resolved, jobs: Sequence[Planned], store: Store, history: History
) -> Iterator[Planned]:
    """Plan what the study's tables of other experiments ask for.

    Parameters
    ----------
    resolved : Resolved
        Without the images that cannot be read.
    jobs : sequence of Planned
        The study's own; its probes know which cached entries are meant.
    """
    if study.few_examples is not None:
        probes = [planned for planned in jobs if planned.stage == "probe"]
        yield from plan_few_examples(study, study.few_examples, resolved, probes, store, history)
    if study.convergence is not None:
        yield from plan_convergence(study, study.convergence, resolved, history)
