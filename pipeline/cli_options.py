"""Options that many commands share, and how they print JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def output_options(command: F) -> F:
    """Give a command --json and --quiet."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
    return click.option("--quiet", is_flag=True, help="No bars and no remarks; errors only.")(command)


def run_options(command: F) -> F:
    """Give a command the options of everything that runs jobs."""
    for option in (
        click.option("--only", metavar="REGEX", help="Run only the jobs whose name matches."),
        click.option(
            "--jobs", type=click.IntRange(min=1), help="Processes for probes (default: one a core)."
        ),
        click.option("--rehash", is_flag=True, help="Hash every image again; distrust what is remembered."),
    ):
        command = option(command)
    return output_options(command)


def print_json(value: Any) -> None:
    """Print one JSON value, strict."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, default=str))
