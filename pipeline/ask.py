"""Asking on a terminal which of several cached entries is meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import click

from pipeline.choices import SHORT, AmbiguousEntriesError, Choice
from pipeline.config import Study
from pipeline.pinning import lock_of, remember
from pipeline.pins import with_pins
from pipeline.tables import PinTable

T = TypeVar("T")


def settled(study: Study, call: Callable[[Study], T], *, quiet: bool) -> T:
    """Call with the study; where several cached entries match, ask which is meant and call again.

    Parameters
    ----------
    study : Study
    call : callable
        Raises `AmbiguousEntriesError` before it has done anything.
    quiet : bool
        Whether nobody is to be asked. Nor is anybody where there is no terminal.

    Raises
    ------
    AmbiguousEntriesError
        Nobody could be asked.
    """
    try:
        return call(study)
    except AmbiguousEntriesError as error:
        if quiet or error.conflicts or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        answers = [_ask(choice) for choice in error.choices]
    if study.file is not None and click.confirm(f"pin this in {lock_of(study)}?", default=True, err=True):
        remember(study, answers)
    return call(with_pins(study, answers))


def _ask(choice: Choice) -> PinTable:
    """Put one question and return its answer."""
    click.echo(f"{choice.title}:", err=True)
    for number, candidate in enumerate(choice.candidates, start=1):
        click.echo(f"  {number}  {candidate.key[:SHORT]}  {candidate.about}", err=True)
    numbers = click.IntRange(1, len(choice.candidates))
    number = click.prompt("which one is meant", type=numbers, err=True)
    return choice.answer(choice.candidates[number - 1])
