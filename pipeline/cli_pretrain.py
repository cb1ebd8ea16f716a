"""Training on a source task, and what other experiments there are."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from pipeline.cli_options import output_options, print_json
from pipeline.errors import EXIT_DONE, EXIT_SOME_FAILED

STUDIES: tuple[tuple[str, str, str], ...] = (
    (
        "few examples",
        "[few_examples], then penultimate run STUDY",
        "How many images is pretraining worth? Every regime again on 1, 2, 4, ... images a class, with the number "
        "from which fine-tuning overtakes the probe, and scratch either. The probes use cached features.",
    ),
    (
        "convergence",
        "[convergence], then penultimate run STUDY",
        "How much faster does fine-tuning converge? Independent trainings whose schedules end sooner and later, the "
        "first length that comes near the best, and the ratio of both regimes.",
    ),
    (
        "regularisation",
        "[pretrain], then penultimate pretrain STUDY, which says how to go on",
        "Which training tricks spoil features? Checkpoints of one network with and without batch-norm scale, label "
        "smoothing, dropout and auxiliary head, probed and fine-tuned on other sets, in order.",
    ),
    (
        "t-SNE",
        "penultimate analyse tsne STUDY",
        "What do the features look like? Classes of one set in the plane, backbones side by side, from cached "
        "features; figure and coordinates.",
    ),
    (
        "near-duplicates",
        "penultimate analyse duplicates STUDY",
        "Has training seen the test images? Crops, rescaled, recompressed and mirrored copies between two sets or "
        "inside one, and the probe's score without them.",
    ),
    (
        "read-outs",
        "penultimate analyse read-outs STUDY, then penultimate join STUDY",
        "Would a cheap score have chosen the right backbone? Neighbours, class means, ridge, LogME and H-score, each "
        "with what following it would have cost in log odds.",
    ),
)
"""Name, how to run it, two lines on it."""


@click.command()
@output_options
def studies(as_json: bool, quiet: bool) -> None:
    """List the paper's other experiments: what each answers, and how to run it."""
    if as_json:
        print_json([{"study": name, "run": how, "about": about} for name, how, about in STUDIES])
    elif not quiet:
        for name, how, about in STUDIES:
            click.echo(f"{name}: {how}")
            click.echo(click.wrap_text(about, width=99, initial_indent="  ", subsequent_indent="  "))


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Processes for trainings on the CPU (default: one a core)."
)
@click.option("--rehash", is_flag=True, help="Hash every image again; distrust what is remembered.")
@click.option("--yes", is_flag=True, help="Do not ask before work estimated at over an hour.")
@output_options
def pretrain(study: Path, jobs: int | None, rehash: bool, yes: bool, as_json: bool, quiet: bool) -> None:
    """Train STUDY's networks on its source task under several settings, and write the study that compares them.

    The checkpoints become backbones of STUDY.pretrained.toml, with the source accuracy in the place of ImageNet
    top-1. What was interrupted goes on; what is done costs nothing.
    """
    from pipeline.config import load_study
    from pipeline.consent import Consent
    from pipeline.pretrain import pretrain as train
    from pipeline.progress import Reporter

    silent = quiet or as_json
    reporter = Reporter(quiet=silent)
    agree = Consent(("scratch",), only=None, processes=jobs, reporter=reporter, yes=yes, quiet=silent)
    outcome = train(load_study(study), workers=jobs, rehash=rehash, reporter=reporter, agree=agree)
    if as_json:
        print_json(asdict(outcome))
    elif not quiet:
        from pipeline.text_tables import rows_text

        rows = [
            {
                "backbone": one.backbone,
                "variant": one.variant,
                one.metric: one.accuracy,
                "weights": one.weights,
            }
            for one in outcome.checkpoints
        ]
        click.echo(rows_text(rows)) if rows else None
        click.echo(f"next: penultimate run {outcome.study}") if outcome.study else None
    for failure in outcome.failed:
        click.echo(f"{failure.job}: {failure.reason}\n  log: {failure.log}", err=True)
    for name in outcome.lacking:
        click.echo(f"{name}: no checkpoint, its loss diverged: try a smaller learning_rate", err=True)
    sys.exit(EXIT_SOME_FAILED if outcome.failed or outcome.lacking else EXIT_DONE)
