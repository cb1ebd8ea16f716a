"""Planning of the comparison of schedule lengths: every length is an independent search and training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.config import Study
from pipeline.jobs import Part, Planned
from pipeline.ledger import History
from pipeline.plan_training import plan_cell, plan_without_images
from pipeline.resolve import Resolved, with_network
from pipeline.tables_experiments import ConvergenceTable
from stages.records import Regime

TRAININGS: tuple[Regime, ...] = ("fine_tune", "from_scratch")


def plan_convergence(
    study: Study, table: ConvergenceTable, resolved: Resolved, history: History
) -> Iterator[Planned]:
    """Plan the trainings of every length.

    Nothing of a shorter schedule is continued by a longer one, and each length chooses its own grid point
    (protocol, "Convergence").
    """
    for regime in TRAININGS:
        training = study.training(regime)
        if training is None:
            continue
        for steps in table.steps(regime):
            own, suffix = training.model_copy(update={"steps": steps}), f",length={steps}"
            part = Part("convergence", steps=steps)
            for backbone in with_network(resolved):
                for name in table.datasets or [dataset.name for dataset in study.dataset]:
                    images = resolved.images.get(name)
                    if images is not None:
                        jobs = plan_cell(study, regime, own, backbone, images, history, suffix=suffix)
                    else:
                        jobs = plan_without_images(
                            study, regime, own, backbone, name, resolved, history, suffix=suffix
                        )
                    yield from (replace(job, part=part) for job in jobs)
