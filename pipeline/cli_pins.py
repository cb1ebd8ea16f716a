"""`penultimate cache pin` and `penultimate cache remove`: which entries are meant, and which are not."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli_options import output_options, print_json


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@output_options
def pin(study: Path, keys: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Write down in STUDY.lock which entries STUDY uses, to the byte.

    With KEYs (or beginnings of keys) those entries are pinned, and other pins stay; without, every entry that the
    study uses now. Every command reads the lock: entries with other content are refused from then on.
    """
    from pipeline.ask import settled
    from pipeline.config import load_study
    from pipeline.pinning import pin as write_pins
    from pipeline.text_tables import rows_text

    rows = settled(load_study(study), lambda s: write_pins(s, keys), quiet=quiet or as_json)
    if as_json:
        print_json(rows)
    elif not quiet:
        short = [
            {**r, "key": r["key"][:12], "content_digest": (r["content_digest"] or "-")[:12]} for r in rows
        ]
        click.echo(rows_text(short))


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@output_options
def remove(keys: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Move the entries KEY (or beginnings of keys) to the trash."""
    from pipeline.progress import Reporter
    from pipeline.resolve import open_store
    from pipeline.share import complete

    store = open_store(notify=Reporter(quiet=quiet or as_json).say)
    moved = [{"key": key, "moved_to": str(store.remove(key))} for key in [complete(store, k) for k in keys]]
    if as_json:
        print_json(moved)
    elif not quiet:
        for row in moved:
            click.echo(f"{row['key'][:12]}: moved to {row['moved_to']}")
