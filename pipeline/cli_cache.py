"""`penultimate cache`: what lies in the feature cache, whether it can be trusted, and handing it on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli_options import output_options, print_json
from pipeline.errors import EXIT_SOME_FAILED, StudyError

if TYPE_CHECKING:
    from cache import Store

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def cache() -> None:
    """Look after cached features and share them.

    The cache lies in $PENULTIMATE_CACHE, else in ~/.cache/penultimate. A REMOTE is a folder or any URL that
    fsspec knows: s3://bucket/prefix, gs://..., sftp://host/path, hf://datasets/USER/NAME, https://... (pull only).
    gs:// and hf:// were never run against their servers: say so if they fail.
    """


def choice_options(command: F) -> F:
    """Give a command the ways to say which entries."""
    for option in (
        click.argument("coordinates", nargs=-1, metavar="[NAME=VALUE]..."),
        click.option("--key", "keys", multiple=True, help="An entry by its key or the beginning of it."),
        click.option("--study", type=click.Path(path_type=Path), help="What this study needs."),
    ):
        command = option(command)
    return command


@cache.command("list")
@click.argument("coordinates", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--remote", help="List a remote instead.")
@output_options
def list_entries(coordinates: tuple[str, ...], remote: str | None, as_json: bool, quiet: bool) -> None:
    """List cached entries; NAME=VALUE (backbone=..., dataset=..., split=...) narrows the list."""
    from pipeline.share import listed, nothing_listed
    from pipeline.text_tables import rows_text

    store = opened(quiet)
    facts = parsed(coordinates, about_keys="`penultimate cache show KEY` shows one entry")
    rows = listed(store, remote, facts)
    if as_json:
        print_json(rows)
    elif not quiet:
        shown = [{name: value for name, value in row.items() if name != "path"} for row in rows]
        table = rows_text([{**row, "key": row["key"][:12]} for row in shown])
        click.echo(table or nothing_listed(store, remote, facts))


@cache.command()
@click.argument("key")
@click.option("--remote", help="Show what a remote says of it instead.")
@output_options
def show(key: str, remote: str | None, as_json: bool, quiet: bool) -> None:
    """Show one entry by its KEY, or the beginning of it: coordinates, recipe, provenance."""
    from pipeline.share import complete, described, described_there
    from pipeline.text_tables import facts_text

    store = opened(quiet)
    facts = described(store, complete(store, key)) if remote is None else described_there(store, remote, key)
    if as_json:
        print_json(facts)
    elif not quiet:
        click.echo(facts_text(facts))


def _transfer(name: str, about: str) -> None:
    """Add `push` or `pull`."""

    @cache.command(name, help=about)
    @click.argument("remote")
    @choice_options
    @click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
    @output_options
    def command(
        remote: str,
        coordinates: tuple[str, ...],
        keys: tuple[str, ...],
        study: Path | None,
        dry_run: bool,
        as_json: bool,
        quiet: bool,
        verify: bool = False,
    ) -> None:
        from pipeline.progress import Reporter
        from pipeline.share import transfer
        from pipeline.text_tables import rows_text

        store, reporter = opened(quiet or as_json), Reporter(quiet=quiet or as_json)
        moved = transfer(
            name,
            store,
            remote,
            parsed(coordinates),
            keys,
            study,
            dry_run=dry_run,
            verify=verify,
            reporter=reporter,
        )
        if as_json:
            print_json(moved.rows)
        elif not quiet:
            click.echo(rows_text([{**row, "key": row["key"][:12]} for row in moved.rows]) or "nothing to do")
        end_with(moved.lacking)

    if name == "push":
        help_text = "Read again what REMOTE holds, and replace what is damaged there."
        click.option("--verify", is_flag=True, help=help_text)(command)


_transfer(
    "push", "Copy entries to REMOTE, by --study, --key or NAME=VALUE; each is verified before it leaves."
)
_transfer(
    "pull", "Copy entries from REMOTE, by --study, --key or NAME=VALUE; each is verified before it is used."
)


@cache.command("export")
@click.argument("key")
@click.argument("file", type=click.Path(path_type=Path))
@output_options
def export_file(key: str, file: Path, as_json: bool, quiet: bool) -> None:
    """Copy the entry KEY to one FILE, to hand over by mail or stick."""
    from cache.errors import one_line
    from cache.hand_over import export_entry
    from pipeline.share import complete

    store = opened(quiet)
    written = export_entry(store, complete(store, key), file)
    if as_json:
        print_json({"file": str(written)})
    elif not quiet:
        name = one_line(shlex.quote(written.name))
        click.echo(f"{one_line(written)}: hand it over; `penultimate cache import {name}` takes it in")


@cache.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("labels", required=False, type=click.Path(path_type=Path))
@click.argument("coordinates", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--hdf5-dataset", default="features", show_default=True, help="Which array of an HDF5 file.")
@click.option("--classes", help="All class names in order, joined with |, where LABELS lacks some.")
@click.option(
    "--multi-label", is_flag=True, help="Several labels an image, or none, even if no line of LABELS has."
)
@output_options
def import_file(
    file: Path,
    labels: Path | None,
    coordinates: tuple[str, ...],
    hdf5_dataset: str,
    classes: str | None,
    multi_label: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take in an exported entry, or features of your own with their LABELS.

    FILE alone is an entry that somebody exported. FILE.npy or an HDF5 file with a csv of LABELS (id,label[,group],
    one line a row; "a|b" are two labels, "?a" an unknown one) becomes an entry with its own recipe; say at least
    backbone=..., dataset=... and split=..., and use weights = "cached" for that backbone in the study.
    """
    from pipeline.taking_in import imported

    facts = parsed(coordinates, about_keys="give FILE, LABELS and then coordinates")
    row = imported(opened(quiet), file, labels, facts, hdf5_dataset, classes, multi_label)
    if as_json:
        print_json(row)
    elif not quiet:
        status = {"present": "already here"}.get(row["status"], row["status"])
        click.echo(f"{row['key'][:12]}: {status}, {row['rows']} rows")


def end_with(lacking: Sequence[str]) -> None:
    """Say what a study needs and is not there, and end as with a job that was not done."""
    for line in lacking:
        click.echo(f"error: {line}", err=True)
    if lacking:
        sys.exit(EXIT_SOME_FAILED)


def opened(quiet: bool) -> Store:
    """Open the store of this user; what it has to tell goes to standard error."""
    from pipeline.cache_folder import open_store
    from pipeline.progress import Reporter

    return open_store(notify=Reporter(quiet=quiet).say)


def parsed(
    coordinates: tuple[str, ...], *, about_keys: str = "a key is given as --key KEY"
) -> dict[str, str]:
    """Turn NAME=VALUE words into coordinates; ``about_keys`` says what is done with a key in place of one."""
    found: dict[str, str] = {}
    for word in coordinates:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise StudyError(f"{word!r} is not NAME=VALUE, as in dataset=digits; {about_keys}")
        if name in found:
            raise StudyError(f"{name!r} is given twice, as {found[name]!r} and as {value!r}; give one")
        found[name] = value
    return found
