"""`penultimate cache verify`, `gc`, `remove` and `restore`: which entries can be trusted, and which may go."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli_cache import choice_options, end_with, opened, parsed
from pipeline.cli_options import ByteCount, output_options, print_json
from pipeline.errors import EXIT_SOME_FAILED, EXIT_SURROUNDINGS, StudyError

LARGEST = 1e9
"""Days or GB that anybody means."""


class Amount(click.ParamType):  # type: ignore[type-arg]  # older ones take none
    """A finite number, 0 or more."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ARG002
        """Return the number, or refuse the text."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number <= LARGEST:
            where = param.opts[0] if param else "an amount"
            raise StudyError(f"{where} is {str(value)!r}; give a finite number, 0 or more, up to 1e9")
        return number


class Gigabytes(Amount):
    """A number of GB, 0 or more; another unit is written behind it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of GB, or refuse the text."""
        if str(value).rstrip("B").endswith(tuple("kMGTi")):
            return ByteCount().convert(value, param, ctx) / 1e9
        return super().convert(value, param, ctx)


@click.command()
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
    from pipeline.keep import recomputed, set_aside_before, verified
    from pipeline.progress import Reporter
    from pipeline.share import chosen

    if recompute and study is None:
        raise StudyError("--recompute needs --study STUDY: it says where the images and weights are")
    store = opened(quiet or as_json)
    for line in set_aside_before(store):
        store.notify(line)
    picked = chosen(store, parsed(coordinates), keys, study)
    reporter = Reporter(quiet=quiet or as_json)
    rows = verified(store, picked.keys, sample=sample, deep=deep, reporter=reporter)
    if recompute and study is not None:
        rows += recomputed(study, recompute, reporter=reporter)
    wrong = [row for row in rows if row["verdict"] != "sound"]
    if as_json:
        print_json(rows)
    elif not quiet:
        click.echo(f"{len(rows) - len(wrong)} of {len(rows)} checks found nothing wrong")
    for row in wrong:
        click.echo(f"error: {row['status']}", err=True)
    if wrong:
        damaged = any(row["verdict"] == "damaged" for row in wrong)
        sys.exit(EXIT_SOME_FAILED if damaged else EXIT_SURROUNDINGS)
    end_with(picked.lacking)


@click.command()
@click.option("--older-than", type=Amount(), metavar="DAYS", help="Entries not used for so many days.")
@click.option(
    "--largest-total",
    type=Gigabytes(),
    metavar="GB",
    help="The longest unused, until the rest is so small: a number of GB, or with its unit (500MB).",
)
@click.option("--keep", multiple=True, type=click.Path(path_type=Path), help="Keep what this study needs.")
@click.option(
    "--grace", type=Amount(), default=7, show_default=True, help="Days in the trash before deletion."
)
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
    """Move entries to the trash, and delete for good what has been there longer than its grace.

    Without --older-than, --largest-total and --keep no entry is moved; `gc --grace 0` empties the trash. With it
    goes what nobody has needed for 30 days: half-extracted rows, what killed processes left, decoded images of
    trainings. `penultimate cache restore KEY` takes an entry back out of the trash.
    """
    from pipeline.keep import collected
    from pipeline.text_tables import rows_text

    outcome = collected(
        opened(quiet),
        older_than=older_than,
        largest_total=largest_total,
        keep=keep,
        grace=grace,
        dry_run=dry_run,
    )
    if as_json:
        print_json(outcome)
    elif not quiet:
        moved, gone = outcome["moved"], outcome["deleted_entries"]
        would = "would be " if dry_run else ""
        total = sum(row["bytes"] for row in moved)
        for rows in (moved, gone):
            if rows:
                click.echo(rows_text([{**row, "key": row["key"][:12]} for row in rows]))
            if rows is moved:
                click.echo(f"{would}moved to the trash: {len(moved)} entries, {total} bytes")
        freed = ", ".join(f"{kind} {nbytes}" for kind, nbytes in outcome["deleted"].items())
        click.echo(f"{would}deleted for good: {outcome['deleted_bytes']} bytes ({freed})")


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@output_options
def restore(keys: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Take the entries KEY (or beginnings of keys) back out of the trash."""
    from pipeline.share import restored

    rows = restored(opened(quiet or as_json), keys)
    if as_json:
        print_json(rows)
    elif not quiet:
        for row in rows:
            click.echo(f"{row['key'][:12]}: back at {row['path']}")


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@output_options
def remove(keys: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Move the entries KEY (or beginnings of keys) to the trash."""
    from pipeline.share import complete

    store = opened(quiet or as_json)
    moved = [{"key": key, "moved_to": str(store.remove(key))} for key in [complete(store, k) for k in keys]]
    if as_json:
        print_json(moved)
    elif not quiet:
        for row in moved:
            click.echo(f"{row['key'][:12]}: moved to {row['moved_to']}")
