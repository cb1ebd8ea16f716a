"""`penultimate cache`: what lies in the feature cache, whether it can be trusted, and handing it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    from pipeline.share import listed
    from pipeline.text_tables import rows_text

    rows = listed(_open(quiet), remote, _parse(coordinates))
    if as_json:
        print_json(rows)
    elif not quiet:
        click.echo(rows_text([{**row, "key": row["key"][:12]} for row in rows]) or "no such entries")


@cache.command()
@click.argument("key")
@output_options
def show(key: str, as_json: bool, quiet: bool) -> None:
    """Show one entry by its KEY, or the beginning of it: coordinates, recipe, provenance."""
    from pipeline.share import complete, described

    store = _open(quiet)
    facts = described(store, complete(store, key))
    if as_json or not quiet:
        print_json(facts)


@cache.command()
@choice_options
@click.option("--sample", type=click.IntRange(min=1), help="Hash only so many blocks of 4 MiB of each entry.")
@click.option("--deep", is_flag=True, help="Compare the index with what the HDF5 library reads, in a child.")
@click.option(
    "--recompute",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run N rows of each entry again (needs --study).",
)
@output_options
def verify(
    coordinates: tuple[str, ...],
    keys: tuple[str, ...],
    study: Path | None,
    sample: int | None,
    deep: bool,
    recompute: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check entries again, trusting nothing remembered; a damaged one is set aside and named.

    Without a choice every entry is checked, every byte of it.
    """
    from pipeline.keep import recomputed, verified
    from pipeline.progress import Reporter
    from pipeline.share import chosen

    store = _open(quiet or as_json)
    picked = chosen(store, _parse(coordinates), keys, study)
    reporter = Reporter(quiet=quiet or as_json)
    rows = verified(store, picked, sample=sample, deep=deep, reporter=reporter)
    if recompute:
        if study is None:
            raise StudyError("--recompute needs --study STUDY: it says where the images and weights are")
        rows += recomputed(study, recompute, reporter=reporter)
    damaged = [row for row in rows if row["status"] != "sound"]
    if as_json:
        print_json(rows)
    elif not quiet:
        click.echo(f"{len(rows) - len(damaged)} of {len(rows)} checks found nothing wrong")
    for row in damaged:
        click.echo(f"error: {row['status']}", err=True)
    if damaged:
        sys.exit(EXIT_SOME_FAILED)


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

        store, reporter = _open(quiet or as_json), Reporter(quiet=quiet or as_json)
        rows = transfer(
            name,
            store,
            remote,
            _parse(coordinates),
            keys,
            study,
            dry_run=dry_run,
            verify=verify,
            reporter=reporter,
        )
        if as_json:
            print_json(rows)
        elif not quiet:
            click.echo(rows_text([{**row, "key": row["key"][:12]} for row in rows]) or "nothing to do")

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
    from cache.hand_over import export_entry
    from pipeline.share import complete

    store = _open(quiet)
    written = export_entry(store, complete(store, key), file)
    if as_json:
        print_json({"file": str(written)})
    elif not quiet:
        click.echo(f"{written}: hand it over; `penultimate cache import {written.name}` takes it in")


@cache.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("labels", required=False, type=click.Path(path_type=Path))
@click.argument("coordinates", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--hdf5-dataset", default="features", show_default=True, help="Which array of an HDF5 file.")
@click.option("--classes", help="All class names in order, joined with |, where LABELS lacks some.")
@output_options
def import_file(
    file: Path,
    labels: Path | None,
    coordinates: tuple[str, ...],
    hdf5_dataset: str,
    classes: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take in an exported entry, or features of your own with their LABELS.

    FILE alone is an entry that somebody exported. FILE.npy or an HDF5 file with a csv of LABELS (id,label[,group],
    one line a row) becomes an entry with its own recipe; say at least backbone=..., dataset=... and split=..., and
    use weights = "cached" for that backbone in the study.
    """
    from pipeline.share import imported

    row = imported(_open(quiet), file, labels, _parse(coordinates), hdf5_dataset, classes)
    if as_json:
        print_json(row)
    elif not quiet:
        click.echo(f"{row['key'][:12]}: {row['status']}, {row['rows']} rows")


@cache.command()
@click.option("--older-than", type=float, metavar="DAYS", help="Entries not used for so many days.")
@click.option(
    "--largest-total", type=float, metavar="GB", help="The longest unused, until the rest is so small."
)
@click.option("--keep", multiple=True, type=click.Path(path_type=Path), help="Keep what this study needs.")
@click.option("--grace", type=float, default=7, show_default=True, help="Days in the trash before deletion.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@output_options
def gc(
    older_than: float | None,
    largest_total: float | None,
    keep: tuple[Path, ...],
    grace: float,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Move entries to the trash, and delete for good what has been there longer than its grace."""
    from pipeline.keep import collected
    from pipeline.text_tables import rows_text

    if older_than is None and largest_total is None and not keep:
        raise StudyError("say which entries may go: --older-than DAYS, --largest-total GB or --keep STUDY")
    outcome = collected(
        _open(quiet),
        older_than=older_than,
        largest_total=largest_total,
        keep=keep,
        grace=grace,
        dry_run=dry_run,
    )
    if as_json:
        print_json(outcome)
    elif not quiet:
        click.echo(
            rows_text([{**row, "key": row["key"][:12]} for row in outcome["moved"]]) or "nothing to move"
        )
        click.echo(f"deleted for good: {outcome['deleted_bytes']} bytes")


def _open(quiet: bool) -> Store:
    """Open the store of this user; what it has to tell goes to standard error."""
    from pipeline.progress import Reporter
    from pipeline.resolve import open_store

    return open_store(notify=Reporter(quiet=quiet).say)


def _parse(coordinates: tuple[str, ...]) -> dict[str, str]:
    """Turn NAME=VALUE words into coordinates."""
    for word in coordinates:
        if "=" not in word:
            raise StudyError(f"{word!r} is not NAME=VALUE, as in dataset=digits")
    return dict(word.split("=", 1) for word in coordinates)
