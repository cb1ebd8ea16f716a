"""STUDY.lock, beside the study file: which cached entries a study uses, to the byte.

It is TOML of the study file's own ``[[pin]]`` tables, sorted, one for each backbone, data set and split, so that
people read it, version control shows what changed, and two branches merge.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from cache.atomic import write_file
from pipeline.errors import StudyError
from pipeline.tables import PinTable

VERSION = 1
"""Grows when an older tool would misread the file."""
_AGAIN = "`penultimate cache pin` writes a new one"


def lock_file(study_file: Path) -> Path:
    """Return where the lock of a study file lies: bees.toml has bees.lock."""
    return study_file.with_suffix(".lock")


def read_lock(path: Path) -> tuple[PinTable, ...]:
    """Read the pins of a lock; none where there is no such file.

    Raises
    ------
    StudyError
        The file is not a lock, or a later version wrote it.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); mend it and run again") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyError(f"{path}: not TOML ({error}); remove it, {_AGAIN}") from error
    version = raw.pop("version", None)
    if isinstance(version, int) and version > VERSION:
        raise StudyError(f"{path}: lock version {version}, this version reads {VERSION}; update penultimate")
    tables = raw.pop("pin", [])
    if version != VERSION or raw or not isinstance(tables, list):
        raise StudyError(f"{path}: not a lock of version {VERSION} with [[pin]] tables; remove it, {_AGAIN}")
    return _unique(path, [_pin(path, i, table) for i, table in enumerate(tables, start=1)])


def write_lock(path: Path, pins: Iterable[PinTable]) -> None:
    """Write a lock, whole or not at all.

    Raises
    ------
    CacheWriteError
        The folder cannot be written.
    """
    about = f"# Which cached features {path.stem}.toml uses, to the byte; written by `penultimate cache pin`."
    blocks = [f"{about}\nversion = {VERSION}\n"]
    for pin in sorted(pins, key=lambda pin: pin.place):
        lines = [f"{name} = {_text(value)}" for name, value in pin.model_dump(exclude_none=True).items()]
        blocks.append("\n".join(["[[pin]]", *lines]) + "\n")
    write_file(path, "\n".join(blocks).encode())


def _pin(path: Path, number: int, table: object) -> PinTable:
    """Check one table."""
    from pipeline.mistakes import explain

    try:
        return PinTable.model_validate(table)
    except ValidationError as error:
        raise StudyError(f"{path}: pin[{number}].{line}; {_AGAIN}" for line in explain(error)) from None


def _unique(path: Path, pins: list[PinTable]) -> tuple[PinTable, ...]:
    """Refuse two pins of one place."""
    seen = set()
    for pin in pins:
        if pin.place in seen:
            raise StudyError(f"{path}: {' / '.join(pin.place)} is pinned twice; keep one")
        seen.add(pin.place)
    return tuple(pins)


def _text(value: str) -> str:
    """Write a text; JSON's escapes are TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
