"""`penultimate cache`: what lies in the feature cache, and whether it can be trusted."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import EXIT_SOME_FAILED, StudyError

if TYPE_CHECKING:
    from cache import EntryInfo, Store


@click.group()
def cache() -> None:
    """Look after cached features: list, show, verify.

    The cache lies in $PENULTIMATE_CACHE, else in ~/.cache/penultimate.
    """


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet_option = click.option("--quiet", is_flag=True, help="No bars and no remarks; errors only.")


@cache.command("list")
@click.argument("coordinates", nargs=-1, metavar="[NAME=VALUE]...")
@json_option
@quiet_option
def list_entries(coordinates: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """List cached entries; NAME=VALUE (backbone=..., dataset=..., split=...) narrows the list."""
    from pipeline.show import rows_text

    infos = _open().find(**_parse(coordinates))
    rows = [
        {"key": info.key if as_json else info.key[:12], "rows": info.rows, "dimension": info.dimension,
         "bytes": info.nbytes, **info.coordinates}
        for info in infos
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not quiet:
        click.echo(rows_text(rows) or "the cache holds no such entries")


@cache.command()
@click.argument("key")
@json_option
@quiet_option
def show(key: str, as_json: bool, quiet: bool) -> None:
    """Show one entry by its KEY, or the beginning of it: coordinates, recipe, provenance."""
    store = _open()
    entry = store.read(_complete(store, key))
    recipe = {name: value for name, value in entry.key.ingredients.items() if name != "samples"}
    facts: dict[str, Any] = {
        "key": entry.key.digest,
        "path": str(entry.path),
        "content_digest": entry.content_digest,
        "shape": list(entry.features.shape),
        "dtype": str(entry.features.dtype),
        "coordinates": dict(entry.metadata["coordinates"]),
        "recipe": recipe,
        "classes": len(entry.metadata["class_names"]),
        "excluded": [list(pair) for pair in entry.metadata["excluded"]],
        "provenance": entry.metadata["provenance"],
    }
    if as_json or not quiet:
        click.echo(json.dumps(facts, indent=1, default=str))


@cache.command()
@json_option
@quiet_option
def verify(as_json: bool, quiet: bool) -> None:
    """Read every entry and check every byte; a damaged one is set aside and named."""
    from cache import CacheError
    from pipeline.progress import Reporter

    store = _open()
    keys = list(store.keys())
    damaged = []
    with Reporter(quiet=quiet or as_json).bar("verifying", "entries") as progress:
        for done, key in enumerate(keys, start=1):
            try:
                store.read(key)
            except CacheError as error:
                damaged.append(str(error))
            progress(done, len(keys), key[:12])
    if as_json:
        click.echo(json.dumps({"entries": len(keys), "damaged": damaged}, indent=1))
    elif not quiet:
        click.echo(f"{len(keys) - len(damaged)} of {len(keys)} entries are sound")
    for line in damaged:
        click.echo(f"error: {line}", err=True)
    if damaged:
        sys.exit(EXIT_SOME_FAILED)


def _open() -> Store:
    """Open the store of this user."""
    from pipeline.resolve import open_store

    return open_store()


def _parse(coordinates: tuple[str, ...]) -> dict[str, str]:
    """Turn NAME=VALUE words into coordinates."""
    for word in coordinates:
        if "=" not in word:
            raise StudyError(f"{word!r} is not NAME=VALUE, as in dataset=digits")
    return dict(word.split("=", 1) for word in coordinates)


def _complete(store: Store, beginning: str) -> str:
    """Find the one key that begins so."""
    found: list[EntryInfo] = [info for info in store.list() if info.key.startswith(beginning)]
    if len(found) != 1:
        raise StudyError(
            f"{len(found)} entries begin with {beginning!r}; `penultimate cache list` shows them"
        )
    return found[0].key
