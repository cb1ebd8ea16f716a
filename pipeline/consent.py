"""Saying what a run will cost before it starts, and asking where that is over an hour."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from pipeline.errors import StudyError
from pipeline.estimates import Estimate, estimate
from pipeline.footprint import megabytes
from pipeline.jobs import Stage
from pipeline.plan import Plan
from pipeline.progress import Reporter
from pipeline.show_estimate import about, estimate_json

ASK_SECONDS = 3600.0
"""Work that is estimated at more is asked about."""
SAY_SECONDS = 600.0
"""Work that is estimated at more is told."""


class NotAgreedError(StudyError):
    """Nobody agreed to start work of over an hour."""


class Consent:
    """Asks once, before anything that takes long has begun.

    Parameters
    ----------
    stages : sequence of str
        That will be run.
    only : str or None
        Regular expression that chooses among their jobs.
    processes : int or None
        Probes and trainings side by side.
    reporter : Reporter
        For what is told and not asked.
    yes : bool
        Whether the answer is yes beforehand.
    quiet : bool
        Whether nobody is to be asked. Nor is anybody where there is no terminal.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        only: str | None,
        processes: int | None,
        reporter: Reporter,
        yes: bool,
        quiet: bool,
    ) -> None:
        self._stages, self._only, self._processes = tuple(stages), only, processes
        self._reporter, self._agreed, self._quiet = reporter, yes, quiet
        self.estimate: Estimate | None = None
        """What was estimated last."""

    def __call__(self, plan: Plan, weights_known: bool) -> None:
        """Estimate a plan; ask where it takes over an hour.

        Parameters
        ----------
        plan : Plan
        weights_known : bool
            Whether it is known which extractions are cached; else those are not counted, and this is called
            again once the weights were fetched.

        Raises
        ------
        NotAgreedError
            The answer was no, or nobody could be asked.
        """
        found = estimate(
            plan,
            stages=self._stages,
            only=self._only,
            processes=self._processes,
            unknown_weights=weights_known,
        )
        self.estimate = found
        if weights_known:
            for line in found.shortages:
                self._reporter.say(f"warning: {line}")
        cost = f"{about(found)} and {megabytes(found.disk.total)} of disk"
        if found.seconds > ASK_SECONDS and not self._agreed:
            self._ask(cost)
        elif weights_known and found.seconds > SAY_SECONDS:
            self._reporter.say(cost)

    def as_json(self) -> dict[str, Any] | None:
        """Return what was estimated as JSON values; None where it did not come to that."""
        return None if self.estimate is None else estimate_json(self.estimate)

    def _ask(self, cost: str) -> None:
        """Ask, and remember that it was agreed."""
        if self._quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise NotAgreedError(
                f"this takes {cost}; nothing was started: --yes starts it without a question"
            )
        click.echo(f"this takes {cost}", err=True)
        if not click.confirm("start", default=False, err=True):
            raise NotAgreedError(
                "nothing was started, as you said; `penultimate plan STUDY` shows what takes long"
            )
        self._agreed = True
