"""The group `penultimate datasets`: what is known by name, and one data set with its split manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli_options import output_options, print_json

OWN = """
your own, by source = "...":
csv:split.csv               path,label,split[,group], or a column of 1 and 0 for each class instead of label
folder:images               train/ [validation/] test/ of class folders, or class folders alone
voc:folder                  ImageSets/Main, Annotations, JPEGImages
wds:train-{000..012}.tar    webdataset shards
hf:user/name@revision       the Hugging Face hub, or a folder of save_to_disk"""


@click.group(invoke_without_command=True)
@output_options
@click.pass_context
def datasets(context: click.Context, as_json: bool, quiet: bool) -> None:
    """List the image sets known by name, and the kinds of sources for your own."""
    if context.invoked_subcommand is not None:
        return
    from pipeline.show import dataset_rows, datasets_text

    if as_json:
        print_json(dataset_rows())
    elif not quiet:
        click.echo(datasets_text(dataset_rows()))
        click.echo(OWN)


@datasets.command("show")
@click.argument("name")
@click.option("--study", type=click.Path(path_type=Path), help="The study file that describes NAME.")
@click.option("--source", help='Where NAME comes from, as in a study: "folder:images", "hf:user/name", ...')
@click.option("--root", type=click.Path(path_type=Path), help="Where a release of the paper's sets lies.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Write the split manifest to this file.")
@click.option(
    "--allow-size-mismatch", is_flag=True, help="Read a paper's set of other sizes than the paper's."
)
@output_options
def show(
    name: str,
    study: Path | None,
    source: str | None,
    root: Path | None,
    manifest: Path | None,
    allow_size_mismatch: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read the image set NAME and show its splits, classes and what was done to get there.

    The split manifest (ids and labels of every split, in order, with a hash) can be named in a study,
    manifest = "FILE", or lie beside the images as penultimate-manifest.json (of split.csv: split.manifest.json):
    the data are compared with it whenever they are read.
    """
    from pipeline.one_dataset import describe_rows, described
    from pipeline.progress import Reporter
    from pipeline.text_tables import rows_text

    with Reporter(quiet=quiet or as_json).bar("reading images", "images") as progress:
        facts: dict[str, Any] = described(
            name,
            study=study,
            source=source,
            root=root,
            allow_size_mismatch=allow_size_mismatch,
            manifest=manifest,
            progress=progress,
        )
    if as_json:
        print_json(facts)
    elif not quiet:
        click.echo(f"{name}: {len(facts['class_names'])} classes, metric {facts['metric']}")
        click.echo(rows_text(describe_rows(facts)))
        for note in facts["notes"]:
            click.echo(note)
        click.echo(f"sha256 of the split manifest: {facts['sha256']}")
