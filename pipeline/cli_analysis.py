"""Commands that read cached features beside the probes: near-duplicates, maps, cheap read-outs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli_options import keeping_nothing, output_options, print_json
from pipeline.errors import EXIT_SOME_FAILED, StudyError

if TYPE_CHECKING:
    from pipeline.cached_tables import CachedTables
    from pipeline.progress import Reporter

F = TypeVar("F", bound=Callable[..., Any])

study_argument = click.argument("study", type=click.Path(path_type=Path))


@click.group()
def analyse() -> None:
    """Look at cached features: images that stand twice, maps of classes, cheap read-outs.

    Needs no GPU, and images only where a command says so. Files go to OUTPUT/analysis, figures into the report
    of the next join.
    """


@analyse.command()
@study_argument
@click.option("--between", nargs=2, metavar="A B", help="Two DATASET/SPLIT; one twice: inside it. "
              "Default: train and test of every data set.")  # fmt: skip
@click.option("--backbone", metavar="LABEL", help="Through whose features (default: the study's first).")
@click.option("--cosine", type=click.FloatRange(0, 1, min_open=True),
              help="Threshold on the features (default: 0.7 where pixels decide after it, else 0.9).")  # fmt: skip
@click.option("--no-pixels", is_flag=True, help="Do not look at the images, even where they are here.")
@click.option("--hide", type=click.IntRange(min=1), metavar="N",
              help="Hide N made copies among the images and say how many are found (needs the network).")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the copies.")
@output_options
def duplicates(
    study: Path,
    between: tuple[str, str] | None,
    backbone: str | None,
    cosine: float | None,
    no_pixels: bool,
    hide: int | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find images of STUDY that stand twice: cropped, rescaled, compressed again or mirrored.

    Features propose pairs, pixels confirm them where the images are on this machine: a pair takes a thirtieth of a
    second of a core, up to 10,000 are looked at. Says what the probe scores without the test images concerned.
    """
    from pipeline.hidden_copies import check_hiding, hide_copies
    from pipeline.near_duplicates import Side, find_duplicates

    tables, reporter = _tables(study, quiet=quiet or as_json)
    sides = [(Side.read(between[0]), Side.read(between[1]))] if between else None
    if sides is None:
        sides = [(Side(name, "train"), Side(name, "test")) for name in tables.datasets()]
    outcomes: list[Any]
    if hide is not None:
        if no_pixels or (between and sides[0][0] != sides[0][1]):
            raise StudyError(
                "--hide puts copies among the images of one split and compares their pixels: leave --no-pixels out, "
                "and name one split twice behind --between"
            )
        alone = dict.fromkeys(first for first, _ in sides)
        check_hiding(tables, alone, hide, backbone=backbone)
        about: dict[str, Any] = {"seed": seed, "backbone": backbone, "cosine": cosine, "reporter": reporter}
        with keeping_nothing("nothing is kept of a search for hidden copies"):
            outcomes = [hide_copies(tables, a, hide, **about) for a in alone]
    else:
        look = functools.partial(
            find_duplicates, tables, backbone=backbone, cosine=cosine, pixels=not no_pixels
        )
        with keeping_nothing(
            "the files of the pairs of splits that were finished are kept, nothing of this one"
        ):
            outcomes = [look(first, second, reporter=reporter) for first, second in sides]
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    elif not quiet:
        for outcome in outcomes:
            click.echo(outcome.line)
            _say_files(getattr(outcome, "files", ()))


@analyse.command()
@study_argument
@click.option("--dataset", metavar="NAME", help="Which data set (default: the study's first).")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True,
              help="Which of its splits.")  # fmt: skip
@click.option("--backbone", "backbones", multiple=True, metavar="LABEL",
              help="Whose map; repeat for several side by side (default: all).")  # fmt: skip
@click.option("--class", "classes", multiple=True, metavar="NAME", help="A class to show; repeat for more.")
@click.option("--count", type=click.IntRange(min=2), default=10, show_default=True,
              help="Classes drawn where none is named.")  # fmt: skip
@click.option("--perplexity", type=float, default=30.0, show_default=True,
              help="About how many neighbours count.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the classes drawn and of the map.")  # fmt: skip
@output_options
def tsne(
    study: Path,
    dataset: str | None,
    split: Any,
    backbones: tuple[str, ...],
    classes: tuple[str, ...],
    count: int,
    perplexity: float,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw the features of STUDY in the plane, backbones side by side, with scikit-learn's t-SNE."""
    from pipeline.tsne import draw_tsne

    tables, reporter = _tables(study, quiet=quiet or as_json)
    name = dataset or tables.datasets()[0]
    reporter.say(f"laying out {name}/{split}")
    with keeping_nothing("nothing is kept of a map that is not finished"):
        outcome = draw_tsne(
            tables,
            name,
            split=split,
            backbones=backbones,
            classes=classes or None,
            count=count,
            perplexity=perplexity,
            seed=seed,
        )
    if as_json:
        maps = [
            {"backbone": m.entry, "divergence": m.divergence, "steps": m.steps} for m in outcome.maps.maps
        ]
        about = {"classes": outcome.maps.class_names, "images": len(outcome.maps.ids), "maps": maps}
        print_json({**about, "caption": outcome.caption, "files": list(outcome.files)})
    elif not quiet:
        click.echo(outcome.caption)
        _say_files(outcome.files)


@analyse.command("read-outs")
@study_argument
@click.option(
    "--backbone", "backbones", multiple=True, metavar="LABEL", help="Only this one; repeat for more."
)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one; repeat for more.")
@output_options
def read_outs(
    study: Path, backbones: tuple[str, ...], datasets: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Score STUDY's features without a probe: neighbours, class means, ridge, LogME, H-score, LEEP.

    LEEP wants torch and the weights with their classifier, and is left out where they are not here.

    `penultimate join` then says how well each would have chosen the backbone: rank correlation, and regret in log
    odds against the best.
    """
    from pipeline.read_outs import compute_read_outs

    tables, reporter = _tables(study, quiet=quiet or as_json)
    rows, problems = compute_read_outs(tables, backbones=backbones, datasets=datasets, reporter=reporter)
    if as_json:
        print_json(rows)
    elif rows and not quiet:
        from pipeline.text_tables import rows_text

        click.echo(rows_text(rows))
        click.echo(f"next: penultimate join {study}")
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if problems:
        sys.exit(EXIT_SOME_FAILED)


def _tables(path: Path, *, quiet: bool) -> tuple[CachedTables, Reporter]:
    """Plan a study from what is cached; what cannot be told without an answer is asked."""
    from pipeline.ask import settled
    from pipeline.beforehand import check_pins
    from pipeline.cached_tables import CachedTables
    from pipeline.config import load_study
    from pipeline.plan import plan
    from pipeline.progress import Reporter

    reporter = Reporter(quiet=quiet)

    def planned(study: Any) -> Any:
        with reporter.bar("hashing images", "images") as progress:
            return plan(study, stages=("probe", "join"), progress=progress, notify=reporter.say)

    current = settled(load_study(path), planned, quiet=quiet)
    check_pins(current)
    return CachedTables(current), reporter


def _say_files(files: tuple[Path, ...]) -> None:
    """Say where the files of an analysis lie."""
    for file in files:
        click.echo(f"  {file}")
