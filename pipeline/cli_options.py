"""Options that many commands share, how they print JSON, and what they say when they are interrupted."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from pipeline.errors import EXIT_INTERRUPTED, StudyError

F = TypeVar("F", bound=Callable[..., Any])


def output_options(command: F) -> F:
    """Give a command --json and --quiet."""
    command = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON: one object, or an array of rows."
    )(command)
    return click.option("--quiet", is_flag=True, help="No bars, remarks or tables; errors only.")(command)


def run_options(command: F) -> F:
    """Give a command the options of everything that runs jobs."""
    for option in (
        click.option("--only", metavar="REGEX", help="Run only the jobs whose name matches."),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            help="Processes of this machine for probes and for trainings on the CPU (default: one a core).",
        ),
        click.option(
            "--executor",
            metavar="WHERE",
            help="Where jobs run: local, dask:ADDRESS or slurm (study: [execution]).",
        ),
        click.option(
            "--retries",
            type=click.IntRange(min=0),
            help="Of a job whose worker dies (default: the study's, 2).",
        ),
        click.option(
            "--slurm",
            multiple=True,
            metavar="KEY=VALUE",
            help="A key of the study's [slurm] table, such as partition=gpu or time=4:00:00; may be repeated.",
        ),
        click.option("--rehash", is_flag=True, help="Hash every image again; distrust what is remembered."),
        click.option("--yes", is_flag=True, help="Do not ask before work estimated at over an hour."),
    ):
        command = option(command)
    return output_options(command)


class ByteCount(click.ParamType):  # type: ignore[type-arg]  # older ones take none
    """A number of bytes: 4GB, 512MB, 2GiB, 1000000."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        """Return the number, or refuse the text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", str(value))
        number = 0
        if found:
            number = int(float(found[1]) * (1024 if found[3] else 1000) ** " kMGT".index(found[2] or " "))
        if number <= 0:
            where = param.opts[0] if param else "a size"
            raise StudyError(f"{where} is {str(value)!r}; give bytes, such as 4GB, 512MB or 2GiB")
        return number


def memory_option(command: F) -> F:
    """Give a command --memory."""
    return click.option(
        "--memory",
        type=ByteCount(),
        help="What copies of features may take, all probes together, such as 4GB; beyond it they stream.",
    )(command)


def print_json(value: Any) -> None:
    """Print one JSON value, strict."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, default=str))


@contextlib.contextmanager
def keeping_nothing(what: str) -> Iterator[None]:
    """Say of an interruption what is left of the work: other commands keep what is finished, these do not."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"interrupted: {what}", err=True)
        sys.exit(EXIT_INTERRUPTED)
