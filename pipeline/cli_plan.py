"""Commands that show a plan and run nothing: how far a study is, what is left of it and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli_options import output_options, print_json
from pipeline.garbage import uncollected

if TYPE_CHECKING:
    from pipeline.config import Study
    from pipeline.jobs import Planned
    from pipeline.plan import Plan


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@output_options
@uncollected()
def status(study: Path, as_json: bool, quiet: bool) -> None:
    """Show how far STUDY is: jobs done, missing, stale and waiting, and why."""
    from pipeline.beforehand import check_pins
    from pipeline.show import jobs_json, plan_json, plan_text, pretraining_text

    current = _planned(study, quiet=quiet or as_json)
    pretrainings = _pretrainings(current)
    if as_json:
        print_json(plan_json(current) | {"pretrain": jobs_json(pretrainings)})
    elif not quiet:
        click.echo(plan_text(current, every_job=False))
        click.echo(f"\n{pretraining_text(pretrainings, study, every_job=False)}") if pretrainings else None
    check_pins(current)


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--hardware", metavar="NAME", help="Estimate for cpu-N, h200, h100 or a100 instead of this machine."
)
@output_options
@uncollected()
def plan(study: Path, hardware: str | None, as_json: bool, quiet: bool) -> None:
    """List every job of STUDY with its state, and what is left in time and disk; nothing is run."""
    from pipeline.beforehand import check_pins
    from pipeline.estimates import estimate
    from pipeline.rates import hardware as rates_of
    from pipeline.show import jobs_json, plan_json, plan_text, pretraining_text
    from pipeline.show_estimate import estimate_json, estimate_text

    on = rates_of(hardware)
    current = _planned(study, quiet=quiet or as_json)
    found, pretrainings = estimate(current, on), _pretrainings(current)
    if as_json:
        shown = {"pretrain": jobs_json(pretrainings), "estimate": estimate_json(found)}
        print_json(plan_json(current) | shown)
    elif not quiet:
        click.echo(f"{plan_text(current, every_job=True)}\n\n{estimate_text(found)}")
        click.echo(f"\n{pretraining_text(pretrainings, study, every_job=True)}") if pretrainings else None
    check_pins(current)


def _planned(path: Path, *, quiet: bool) -> Plan:
    """Plan a study; what cannot be told without an answer is asked."""
    from pipeline.ask import settled
    from pipeline.config import load_study
    from pipeline.plan import plan as make_plan
    from pipeline.progress import Reporter

    reporter = Reporter(quiet=quiet)

    def planned(study: Study) -> Plan:
        with reporter.bar("reading images", "images") as progress:
            return make_plan(study, stages=("probe", "join"), progress=progress, notify=reporter.say)

    return settled(load_study(path), planned, quiet=quiet)


def _pretrainings(plan: Plan) -> list[Planned]:
    """Return the source-task trainings of a study, which `penultimate pretrain` does; they are not in its plan."""
    from pipeline.pretrain import planned_pretrainings

    table = plan.study.pretrain
    if table is None or table.source in plan.resolved.absent:
        return []
    return planned_pretrainings(plan.study, table, plan.resolved)
