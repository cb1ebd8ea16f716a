"""Commands that need no study: a fitted probe on new images, and measuring."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Literal

import click

from pipeline.cli_options import output_options, print_json
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
    "--images", type=click.IntRange(min=32), default=256, show_default=True, help="How many images."
)
@click.option("--thorough", is_flag=True, help="probe: also until scikit-learn is as close; takes long.")
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
    """Measure a STAGE beside the plain way to do it, both in one run, and print the ratio.

    The cache is measured on an entry of 66,000 rows (340 MB, needs 1 GB of disk), beside SHA-256; executors on 500
    jobs that do nothing, here and on a dask cluster of two workers.
    """
    from pipeline.bench import bench as measure
    from pipeline.progress import Reporter
    from pipeline.text_tables import rows_text

    reporter = Reporter(quiet=quiet or as_json)
    reporter.say(f"measuring {stage}: minutes")
    rows = measure(stage, images=images, thorough=thorough, growth=growth, large=large, tell=reporter.say)
    if as_json:
        print_json(rows)
    elif not quiet:
        click.echo(rows_text(rows))
