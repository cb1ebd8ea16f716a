"""`penultimate cache pin`: which entries are meant."""

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
