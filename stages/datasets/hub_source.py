"""What stands after ``hf:``, taken apart without the library ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.datasets.paper_sets import PAPER_SETS
from stages.errors import DatasetAbsentError, DatasetError


@dataclass(frozen=True)
class HubSource:
    """What stands after ``hf:``, taken apart."""

    name: str
    """user/name, or a folder."""
    configuration: str | None
    revision: str | None
    folder: Path | None
    """The folder, where it is one."""
    image_column: str | None
    label_column: str | None
    splits: Mapping[str, str]
    """The source's name of a split -> ours, beside the usual ones."""

    @property
    def frozen(self) -> bool:
        """Whether the revision is a commit, which no one can move."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision or "") is not None


def parse_source(
    location: str, base: Path, image_column: str | None = None, label_column: str | None = None
) -> HubSource:
    """Take the words after ``hf:`` apart."""
    if "?" in location:
        raise DatasetError(
            f"hf:{location}: streaming and other options are refused: features are cached by the hash of every "
            "image and resumed by row, so all rows must be there; leave out what stands from ? on"
        )
    if (base / location).is_dir():
        return HubSource(location, None, None, base / location, image_column, label_column, {})
    name, _, revision = location.partition("@")
    name, _, configuration = name.partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise DatasetAbsentError(
            f"hf:{location}: no folder of that name below {base}, and no name of the hub (user/name@revision)"
        )
    hubs = (s.hub for s in PAPER_SETS.values() if s.hub is not None)
    known = next((hub for hub in hubs if hub.name.partition("@")[0] == name), None)
    return HubSource(
        name,
        configuration or None,
        revision or None,
        None,
        image_column,
        label_column or (known.label_column if known else None),
        dict(known.splits) if known else {},
    )


def identity_of(source: HubSource) -> list[Any]:
    """Return what tells one reading from another; of a folder, its files with sizes and times."""
    files: list[Any] = []
    if source.folder is not None:
        for path in sorted(p for p in source.folder.rglob("*") if p.is_file()):
            stat = path.stat()
            files.append([path.relative_to(source.folder).as_posix(), stat.st_size, stat.st_mtime_ns])
    name = str(source.folder.resolve()) if source.folder else source.name
    columns = [source.image_column, source.label_column, dict(source.splits)]
    return [name, source.configuration, source.revision, columns, files]
