"""What a worker elsewhere must have before it is given a job: the same versions, and the same folders."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.provenance import versions


@dataclass(frozen=True)
class Needs:
    """What the jobs of a run need of a worker."""

    run: str
    """Tells this run from others."""
    versions: Mapping[str, str]
    """Of what decides numbers, as they are here."""
    there: tuple[Path, ...] = ()
    """Files and folders that must be there."""
    writable: tuple[Path, ...] = ()
    """Folders that must be writable there."""
    tokens: tuple[Path, ...] = ()
    """Files that only this run has written: a worker that lacks one has another folder of the same name."""


@contextlib.contextmanager
def needs_of_run(there: Iterable[Path], writable: Iterable[Path], shared: Iterable[Path]) -> Iterator[Needs]:
    """Write down what workers need; tokens lie in the shared folders while the block runs.

    Parameters
    ----------
    there : iterable of Path
        Files and folders that jobs read.
    writable : iterable of Path
        Folders that jobs write to.
    shared : iterable of Path
        Folders that must be the same ones on every machine. One that cannot be written here gets no token.
    """
    run = uuid.uuid4().hex
    tokens = []
    for folder in shared:
        token = folder / f".same-folder-{run}"
        with contextlib.suppress(OSError):
            token.touch()
            tokens.append(token)
    try:
        yield Needs(run, dict(versions()), tuple(there), tuple(writable), tuple(tokens))
    finally:
        for token in tokens:
            with contextlib.suppress(OSError):
                token.unlink()


def unfit(needs: Needs) -> list[str]:
    """Say what this process lacks, one line each; nothing where it is fit."""
    return [*_other_versions(needs.versions), *_unseen(needs)]


def _other_versions(wanted: Mapping[str, str]) -> Iterator[str]:
    """Compare what is installed here with what the run has."""
    here = versions()
    other = [
        f"{name} {here.get(name, 'none')} there, {wanted.get(name, 'none')} here"
        for name in sorted({*here, *wanted})
        if here.get(name) != wanted.get(name)
    ]
    if other:
        yield f"other versions ({'; '.join(other)}): install the same there"


def _unseen(needs: Needs) -> Iterator[str]:
    """Look for files and folders."""
    for path in needs.there:
        if not path.exists():
            yield f"does not see {path}: put it where both do, such as a network file system"
    for token in needs.tokens:
        if token.parent.exists() and not token.exists():
            yield f"has another folder under the name of {token.parent}: put it on a file system that both share"
    for folder in needs.writable:
        if folder.exists() and not os.access(folder, os.W_OK):
            yield f"cannot write to {folder}: give it the permission, or choose another folder"
