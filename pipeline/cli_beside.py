"""Commands that need no study: a fitted probe on new images, and measuring."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Literal

import click

from pipeline.cli_options import keeping_nothing, output_options, print_json
from pipeline.errors import EXIT_SOME_FAILED


@click.command()
@click.argument("probe", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--weights", help="The backbone's weights, where the probe's own are not found: file:PATH, ...")
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="Classes per image.")
@output_options
def predict(
    probe: Path, images: tuple[Path, ...], weights: str | None, top: int, as_json: bool, quiet: bool
) -> None:
    """Classify IMAGES (files or folders) with a fitted PROBE (a .safetensors of results/linear_probe).

    Prints a csv: path, class, probability. An image that cannot be read has empty cells and a line on standard
    error; the others are classified, and the exit status is 1.
    """
    from pipeline.predict import predict as classify
    from pipeline.progress import Reporter

    reporter = Reporter(quiet=quiet or as_json)
    with keeping_nothing("no image was classified"):
        predictions = classify(probe, images, weights=weights, top=top, reporter=reporter)
    if as_json:
        print_json(predictions)
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "class", "probability"])
        for item in predictions:
            known = "error" not in item
            writer.writerow([item["path"], item["class"], f"{item['probability']:.6f}" if known else None])
    errors = [item["error"] for item in predictions if "error" in item]
    for error in errors:
        click.echo(f"error: {error}", err=True)
    if errors:
        sys.exit(EXIT_SOME_FAILED)


@click.command()
@click.argument("stage", type=click.Choice(["extract", "probe", "train", "cache", "executors"]))
@click.option(
    "--images",
    type=click.IntRange(min=32),
    default=256,
    show_default=True,
    help="extract, train, probe without test data: how many.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="probe: also how long scikit-learn takes until its objective is as close to the optimum as ours; hours.",
)
@click.option("--growth", is_flag=True, help="probe: instead, how its time grows with n, d and K.")
@click.option(
    "--large", is_flag=True, help="probe: instead, one path on 75,750 x 2048 features; many minutes."
)
@output_options
def bench(
    stage: Literal["extract", "probe", "train", "cache", "executors"],
    images: int,
    thorough: bool,
    growth: bool,
    large: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a STAGE beside the plain way to do it, both in one run, and print the ratio; times are of 2 cores.

    extract: 256 photographs (--images); about 2 minutes.

    probe: the whole path on four image sets of $PENULTIMATE_TEST_DATA, else on the photographs; 15 to 20 minutes.

    train: training steps on the photographs; a few minutes.

    cache: an entry of 66,000 rows (340 MB, needs 1 GB of disk), beside one SHA-256 of it; half a minute.

    executors: 500 jobs that do nothing, here and on a dask cluster of two workers; a minute or two.
    """
    from pipeline.bench import bench as measure
    from pipeline.progress import Reporter
    from pipeline.text_tables import rows_text

    reporter = Reporter(quiet=quiet or as_json)
    reporter.say(f"measuring {stage}: minutes")
    with keeping_nothing("a bench keeps nothing but what it has told so far"):
        rows = measure(stage, images=images, thorough=thorough, growth=growth, large=large, tell=reporter.say)
    if as_json:
        print_json(rows)
    elif not quiet:
        click.echo(rows_text(rows))
