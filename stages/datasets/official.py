"""Reading what an official release of a data set consists of: lists, tables, folders; one line a mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.datasets.mat_file import NotMatError, read_mat
from stages.datasets.rows import Row
from stages.errors import DatasetError
from stages.records import Progress, SplitName, untold

AGAIN = "fetch the file again, or unpack it again"
PAGE = "is a web page, not the file of that name: the download went wrong; fetch it again"
POINTER = "is a Git LFS pointer, not the file itself: run git lfs pull"


@dataclass(frozen=True)
class Release:
    """An official release as it lies on disk."""

    name: str
    """Of the data set, for messages."""
    home: Path
    """The folder that the archive unpacks to."""
    unpack_to: Path
    """Where images that come packed may be written, once."""
    archives: str = "the release"
    """What to unpack where something lacks."""
    seed: int = 0
    """Of what the release leaves to chance."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know of how it was read."""
    progress: Progress = untold
    """Told of what takes long."""

    @property
    def again(self) -> str:
        """What to do where something lacks."""
        return f"unpack {self.archives} again"

    def file(self, *places: str) -> Path:
        """Return the first of some places where a file lies."""
        for place in places:
            if (self.home / place).is_file():
                return self.home / place
        raise DatasetError(f"{self.home / places[0]}: no such file; {self.again}")

    def folder(self, *places: str) -> Path:
        """Return the first of some places where a folder lies."""
        for place in places:
            if (self.home / place).is_dir():
                return self.home / place
        raise DatasetError(f"{self.home / places[0]}: no such folder; {self.again}")

    def lines(self, *places: str) -> Iterator[tuple[str, str]]:
        """Yield the lines of a text file that are not blank, each with the place it stands at."""
        path = self.file(*places)
        for number, line in enumerate(text_of(path).splitlines(), start=1):
            if line.strip():
                yield f"{path}:{number}", line.strip()

    def row(self, images: Path, entry: str, label: str, split: SplitName, where: str) -> Row:
        """Return one image as the release lists it; its id is the entry."""
        strange = "\\" in entry or not entry.isprintable()
        if strange or not {"", ".", ".."}.isdisjoint(entry.split("/")):
            raise DatasetError(f"{where}: {entry!r} is no path below {images}; {self.again}")
        return Row(entry, Path(os.path.join(images, entry)), label, split)  # noqa: PTH118 - of 100,000 images


def text_of(path: Path) -> str:
    """Return a text file's text.

    Raises
    ------
    DatasetError
        It is a web page or a Git LFS pointer, or not UTF-8.
    """
    return _text(path, bytes_of(path))


def bytes_of(path: Path) -> bytes:
    """Return a file's bytes, unless a web page or a Git LFS pointer took its place."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    wrong = impostor(content[:256])
    if wrong:
        raise DatasetError(f"{path}: {wrong}")
    if not content:
        raise DatasetError(f"{path}: the file is empty; {AGAIN}")
    return content


def impostor(head: bytes) -> str:
    """Say what stands in place of a file, judged by its first bytes; nothing where all is well."""
    if head.startswith(b"version https://git-lfs"):
        return POINTER
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return PAGE if start.startswith((b"<!doctype html", b"<html")) else ""


def _text(path: Path, content: bytes) -> str:
    """Decode, or say where it cannot be."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 at byte {error.start}; {AGAIN}") from error


def json_of(path: Path) -> Any:
    """Return what a JSON file holds."""
    try:
        return json.loads(text_of(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error}); {AGAIN}") from error


def mat_of(path: Path, *names: str) -> Mapping[str, Any]:
    """Return the variables of a MATLAB file, as `read_mat` does.

    Raises
    ------
    DatasetError
        It is something else, is damaged, or lacks one of the names.
    """
    try:
        content = read_mat(bytes_of(path))
    except NotMatError as error:
        raise DatasetError(f"{path}: not a MATLAB file that can be read: {error}; fetch it again") from error
    missing = [name for name in names if name not in content]
    if missing:
        found = ", ".join(map(repr, sorted(content))) or "nothing"
        raise DatasetError(f"{path}: holds no {missing[0]!r} (found: {found}); fetch it again")
    return content
